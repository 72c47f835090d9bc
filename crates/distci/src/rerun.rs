//! `distci rerun BUILD`: asks for a build with the parameters of an earlier one.

use anyhow::Result;
use distci_client::new_request_id;

use crate::cli::Rerun;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::trigger;

pub(crate) async fn run(connection: &Connection, arguments: Rerun, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let earlier = arguments.build.build(&client).await?;
    let triggered = client.rerun(&earlier, &new_request_id()?).await?;
    trigger::after(connection, triggered, &arguments.following, out).await
}
