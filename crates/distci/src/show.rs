//! `distci show BUILD`: a build with its tasks.

use anyhow::Result;
use distci_model::wire::ReportView;

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
    if let Some(report) = client.report(&build.build).await? {
        out.line(unheard(&report))?;
    }
    Ok(Exit::Ok)
}

/// What the forge has not heard yet.
fn unheard(report: &ReportView) -> String {
    let (context, repository, wanted) = (&report.context, &report.repository, report.wanted);
    let why = report.setback.as_ref().map(|setback| {
        let ago = view::span(setback.at, now());
        format!(": {ago} ago, {}", setback.detail)
    });
    let why = why.unwrap_or_default();
    match report.told {
        Some(told) if told == wanted => {
            format!("{context} at {repository} is {told} until the build is over")
        }
        Some(_) | None => format!("{context} at {repository} is not {wanted} yet{why}"),
    }
}
