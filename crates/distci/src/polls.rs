//! `distci polls`: the repositories that are looked at for a job, and what was found there.

use anyhow::Result;
use distci_model::wire::PollView;

use crate::cli::Polls;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::view;

/// So many characters of a commit's id tell it from others.
const SHORT: usize = 12;

pub(crate) async fn run(connection: &Connection, arguments: &Polls, out: &mut Out) -> Result<Exit> {
    let polls = connection.client()?.polls(&arguments.job).await?;
    if arguments.json {
        out.json(&polls)?;
        return Ok(Exit::Ok);
    }
    if polls.is_empty() {
        out.line("no repository is looked at")?;
    }
    for poll in &polls {
        show(poll, out)?;
    }
    Ok(Exit::Ok)
}

fn show(poll: &PollView, out: &mut Out) -> Result<()> {
    let refs = match poll.refs.as_slice() {
        [] => "the default branch".to_owned(),
        refs => refs.join(", "),
    };
    let (repository, every) = (&poll.repository, &poll.every);
    out.line(format_args!("{repository}: {refs}, every {every}"))?;
    let looked = poll
        .looked
        .map(|at| format!("{} ago", view::span(at, now())));
    let looked = looked.as_deref().unwrap_or("never");
    let next = match poll.next {
        Some(next) if next > now() => format!("in {}", view::span(now(), next)),
        Some(_) | None => "now".to_owned(),
    };
    out.line(format_args!("  looked at: {looked}; next: {next}"))?;
    if let Some(setback) = &poll.setback {
        let ago = view::span(setback.at, now());
        out.line(format_args!("  {ago} ago: {}", setback.detail))?;
    }
    for (name, sha) in &poll.heads {
        let sha = sha.get(..SHORT).unwrap_or(sha);
        out.line(format_args!("  {sha} {name}"))?;
    }
    Ok(())
}
