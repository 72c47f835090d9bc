//! `distci why BUILD`: why a build waits, or why it ended as it did.

use anyhow::Result;

use crate::cli::Show;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;

pub(crate) async fn run(connection: &Connection, arguments: &Show, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let build = arguments.build.build(&client).await?;
    let reasons = client.why(&build).await?;
    if arguments.json {
        out.json(&reasons)?;
        return Ok(Exit::Ok);
    }
    for reason in reasons {
        let indent = if reason.task.is_some() { "  " } else { "" };
        out.line(format_args!("{indent}{}", reason.text))?;
    }
    Ok(Exit::Ok)
}
