//! `distci show BUILD`: a build with its tasks.

use anyhow::Result;

use crate::cli::Show;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::view;

pub(crate) async fn run(connection: &Connection, arguments: &Show, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let build = arguments.build.view(&client).await?;
    if arguments.json {
        out.json(&build)?;
        return Ok(Exit::Ok);
    }
    for line in view::build(&build, now(), out.data_paint()) {
        out.line(line)?;
    }
    Ok(Exit::Ok)
}
