//! `distci artifacts BUILD`: lists or downloads what a build published.

use anyhow::Result;

use crate::cli::{Artifacts, ArtifactsDeed};
use crate::connection::Connection;
use crate::exit::Exit;
use crate::fetch::{choose, fetch};
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Artifacts,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let build = arguments.build.build(&client).await?;
    let all = client.artifacts(&build).await?;
    if let Some(ArtifactsDeed::Get { patterns, output }) = &arguments.deed {
        let chosen = choose(all, patterns)?;
        fetch(&client, &build, &chosen, output).await?;
        for artifact in &chosen {
            out.line(output.join(&artifact.path).display())?;
        }
        return Ok(Exit::Ok);
    }
    if arguments.json {
        out.json(&all)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["PATH", "SIZE", "TYPE", "TASK"]);
    for view in &all {
        let artifact = &view.artifact;
        table.row([
            artifact.path.as_str().into(),
            view::size(artifact.bytes).into(),
            artifact.content_type.as_str().into(),
            view.task.as_str().into(),
        ]);
    }
    view::print(&table, "no artifacts", out)?;
    Ok(Exit::Ok)
}
