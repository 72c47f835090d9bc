//! `distci rerun BUILD`: asks for a build with the parameters of an earlier one, or for the rest of one.

use anyhow::Result;
use distci_client::new_request_id;
use distci_model::wire::RerunRequest;

use crate::cli::Rerun;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::trigger;

pub(crate) async fn run(connection: &Connection, arguments: Rerun, out: &mut Out) -> Result<Exit> {
    let client = connection.client()?;
    let earlier = arguments.build.build(&client).await?;
    let wish = RerunRequest {
        failed: arguments.failed,
        from: arguments.from,
    };
    let triggered = client.rerun(&earlier, &wish, &new_request_id()?).await?;
    trigger::after(connection, triggered, &arguments.following, out).await
}
