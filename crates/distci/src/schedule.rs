//! `distci schedule JOB`: when a job's schedules come next.

use std::path::Path;

use anyhow::Result;
use distci_model::schedule::{marked, wall_time};
use distci_model::wire::ScheduleView;

use crate::cli::Schedule;
use crate::clock::now;
use crate::connection::Connection;
use crate::diagnosis::JobFile;
use crate::exit::{Ended, Exit};
use crate::out::Out;
use crate::table::Table;
use crate::view;

pub(crate) async fn run(
    connection: &Connection,
    arguments: &Schedule,
    out: &mut Out,
) -> Result<Exit> {
    let count = arguments.next;
    let schedules = match (&arguments.job, &arguments.file) {
        (Some(job), _) => connection.client()?.schedules(job, count).await?,
        (None, Some(file)) => of_file(file, count, out)?,
        (None, None) => return Err(Ended::failed("name a job, or a file by --file".to_owned())),
    };
    if arguments.json {
        out.json(&schedules)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["SCHEDULE", "ZONE", "MISSED", "NEXT"]);
    for schedule in &schedules {
        let zone = &schedule.timezone;
        let moments = schedule.next.iter();
        let mut next = moments.map(|moment| wall_time(zone, *moment));
        table.row([
            schedule.cron.as_str().into(),
            zone.as_str().into(),
            schedule.catch_up.as_str().into(),
            next.next().unwrap_or_default().into(),
        ]);
        for moment in next {
            table.row(["".into(), "".into(), "".into(), moment.into()]);
        }
    }
    view::print(&table, "the job has no schedules", out)?;
    Ok(Exit::Ok)
}

/// The schedules of a job file, without asking anybody.
fn of_file(path: &Path, count: usize, out: &mut Out) -> Result<Vec<ScheduleView>> {
    let file = JobFile::read(path)?;
    let config = file.config(out)?;
    let mut schedules = Vec::new();
    for marked in marked(&config.triggers) {
        let schedule = marked.schedule(&config.job_id)?;
        schedules.push(ScheduleView {
            cron: marked.trigger.cron.clone(),
            timezone: marked.trigger.timezone.clone(),
            catch_up: marked.trigger.catch_up,
            last: None,
            next: schedule.moments(now()).take(count).collect(),
        });
    }
    Ok(schedules)
}
