//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::Timestamp;
use crate::capability::{Capability, Kind, Label};
use crate::config::JobConfig;
use crate::id::{BuildRef, JobId, NamePattern, TaskName, TicketKey, WorkerName};
use crate::image::ImageDescription;
use crate::isolation::ImageName;
use crate::schedule::Schedule;

/// Of a job file: it is refused with reasons, or what it says can be written and read again as the same.
///
/// # Panics
/// If it does not.
pub fn job_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match JobConfig::parse(&text) {
        Ok(job) => {
            let written = serde_json::to_string(&job).unwrap_or_default();
            assert_eq!(JobConfig::parse(&written).as_ref(), Ok(&job), "{written}");
        }
        Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
    }
    if let Err(problems) = ImageDescription::parse(&text) {
        assert!(!problems.is_empty(), "refused without a reason");
    }
}

/// Of a name: it is refused, or it is written as it was read.
///
/// # Panics
/// If it does not.
pub fn name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    is_itself::<JobId>(&text);
    is_itself::<TaskName>(&text);
    is_itself::<WorkerName>(&text);
    is_itself::<NamePattern>(&text);
    is_itself::<BuildRef>(&text);
    is_itself::<TicketKey>(&text);
    is_itself::<Label>(&text);
    is_itself::<Kind>(&text);
    is_itself::<Capability>(&text);
    is_itself::<ImageName>(&text);
}

fn is_itself<T: FromStr + Display + Debug>(text: &str) {
    if let Ok(name) = text.parse::<T>() {
        assert_eq!(name.to_string(), text, "{name:?}");
    }
}

/// Of a schedule: it is refused, or its moments come one after the other.
///
/// # Panics
/// If it does not.
pub fn schedule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (cron, zone) = text.split_once('|').unwrap_or((&text, "UTC"));
    let Ok(schedule) = Schedule::parse(cron, zone, "job") else {
        return;
    };
    let mut last = Timestamp::UNIX_EPOCH;
    for _ in 0..3 {
        let Some(next) = schedule.next_after(last) else {
            return;
        };
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;

    #[test]
    fn job_files_hold_for_any_bytes() {
        let examples: [&[u8]; 5] = [
            include_bytes!("../../../examples/hello.json"),
            include_bytes!("../../../examples/classic.json"),
            include_bytes!("../../../examples/self.json"),
            br#"{ "job_id": "m", "parameters": { "p": { "choices": ["a", "b"], "default": "a" } },
                "tasks": [{ "type": "execute-shell", "name": "t", "matrix": { "os": ["x", "y"] },
                "locks": [{ "name": "l", "slots": 2 }], "retry": { "count": 2 }, "timeout": 60,
                "params": { "script": "true", "nodelabels": ["linux"] } }],
                "triggers": [{ "on": "schedule", "cron": "0 3 * * *", "timezone": "Europe/Berlin" }],
                "concurrency": { "limit": 1, "when_full": "skip" }, "downstream_jobs": ["n"] }"#,
            br#"{ "debian": { "release": "bookworm", "packages": ["git"] } }"#,
        ];
        let words = [
            "\"needs\": [\"t\"],",
            "\"if\": \"success()\",",
            "\"isolation\": { \"image\": \"debian\" },",
            "${p}",
            "${event.sha:-x}",
            "null",
            "[]",
            "{}",
            "// note\n",
            ",",
        ];
        rounds(&examples, &words, 6_000, super::job_file);
    }

    #[test]
    fn names_hold_for_any_bytes() {
        let ticket = format!("{}.{}", "a".repeat(16), "b".repeat(16));
        let examples: [&[u8]; 6] = [
            b"web",
            b"web#7",
            b"label:linux",
            b"execute-shell",
            b"w-1*.example.org",
            ticket.as_bytes(),
        ];
        let words = ["#", ".", "*", "label:", "@", "/", " "];
        rounds(&examples, &words, 50_000, super::name);
    }

    #[test]
    fn schedules_hold_for_any_bytes() {
        let examples: [&[u8]; 4] = [
            b"0 3 * * *|Europe/Berlin",
            b"*/5 8-18 1,15 jan-jun mon-fri",
            b"H H(0-6) L * 5#2",
            b"@daily|America/New_York",
        ];
        let words = [
            "*", "/", "-", ",", "L", "W", "#", "H", "?", "29 2", "@", "feb", "sun",
        ];
        rounds(&examples, &words, 5_000, super::schedule);
    }
}
