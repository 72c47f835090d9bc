//! `distci cluster`: how a cluster fares, as one frontend sees it.

use anyhow::Result;
use distci_model::vitals::{ClusterView, ServerView};

use crate::cli::Read;
use crate::clock::now;
use crate::connection::Connection;
use crate::exit::Exit;
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(connection: &Connection, arguments: &Read, out: &mut Out) -> Result<Exit> {
    let cluster = connection.client()?.cluster().await?;
    if arguments.json {
        out.json(&cluster)?;
        return Ok(Exit::Ok);
    }
    for line in heads(&cluster) {
        out.line(view::plain(&line))?;
    }
    if !cluster.coordination.servers.is_empty() {
        out.line("")?;
        view::print(&servers(&cluster.coordination.servers), "", out)?;
    }
    out.line("")?;
    let mut paces = Table::new(&["WHAT", "DONE", "MEDIAN", "P99"]);
    for pace in &cluster.paces {
        paces.row([
            pace.what.as_str().into(),
            pace.count.to_string().into(),
            took(pace.median_us).into(),
            took(pace.p99_us).into(),
        ]);
    }
    view::print(&paces, "nothing was done in the last minutes", out)?;
    out.line("")?;
    let mut faults = Table::new(&["LAST", "TIMES", "FAULT", "WHERE"]);
    for fault in &cluster.faults {
        faults.row([
            view::age(fault.at, now()).into(),
            fault.times.to_string().into(),
            view::plain(&fault.what).into(),
            view::plain(&fault.place).into(),
        ]);
    }
    view::print(&faults, "no faults", out)?;
    Ok(Exit::Ok)
}

fn heads(cluster: &ClusterView) -> Vec<String> {
    let coordination = &cluster.coordination;
    let read = match (&coordination.read_us, &coordination.trouble) {
        (Some(micros), _) => format!("a read takes {}", took(*micros)),
        (None, Some(why)) => why.clone(),
        (None, None) => String::new(),
    };
    let mirror = if coordination.current {
        "the mirror is current"
    } else {
        "the mirror is behind"
    };
    let (place, health) = (&coordination.place, &coordination.health);
    let mut heads = vec![
        format!("coordination  {place}: {health}, {read}, {mirror}"),
        format!(
            "blobs         {}: {}",
            cluster.blobs,
            match (cluster.blobs_us, &cluster.blobs_trouble) {
                (Some(micros), _) => format!("one is asked for in {}", took(micros)),
                (None, Some(why)) => why.clone(),
                (None, None) => "unknown".to_owned(),
            }
        ),
        format!("frontends     {}", cluster.frontends.len()),
    ];
    if let Some(session) = &coordination.session {
        let (id, lost, ended) = (&session.id, session.losses, session.ended);
        let id = id.as_deref().unwrap_or("none");
        heads.push(format!(
            "session       {id}, its connection lost {lost} times, {ended} ended before it"
        ));
    }
    heads
}

fn servers(servers: &[ServerView]) -> Table {
    let mut table = Table::new(&["SERVER", "IS", "VERSION", "LATENCY", "CLIENTS", "WAITING"]);
    for server in servers {
        let address = server.address.as_str();
        let count = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
        let Some(state) = &server.state else {
            let why = server.trouble.as_deref().unwrap_or("unknown");
            let none = || "".into();
            table.row([address.into(), why.into(), none(), none(), none(), none()]);
            continue;
        };
        table.row([
            address.into(),
            state.role.as_str().into(),
            state.version.as_str().into(),
            state.latency.as_str().into(),
            count(state.connections).into(),
            count(state.outstanding).into(),
        ]);
    }
    table
}

/// Microseconds in milliseconds.
fn took(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
