//! `distci cancel BUILD…`: asks builds to stop, or one task of theirs.

use anyhow::Result;

use crate::cli::Cancel;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::view;

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Cancel,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    for selector in &arguments.builds {
        let build = selector.build(&client).await?;
        if let Some(task) = &arguments.task {
            client.stop_task(&build, task).await?;
            out.say(format_args!("asked {task} of {build} to stop"))?;
            continue;
        }
        client.cancel(&build).await?;
        let now = client.build(&build.job, &build.number.to_string()).await?;
        match now.outcome {
            Some(outcome) => {
                let outcome = view::outcome_in_words(&outcome);
                out.say(format_args!("{build} is over: {outcome}"))?;
            }
            None => out.say(format_args!("asked {build} to stop"))?,
        }
    }
    Ok(Exit::Ok)
}
