//! Whoever reads a console while it grows: live, or by asking again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_model::wire::CONSOLE_COMPLETE_HEADER;
use serde::Deserialize;

use crate::http::{Api, Request};
use crate::program::within;
use crate::workload::{Followed, Workload};

/// How long a task may take with everything that happens to it.
const LONGEST: Duration = Duration::from_mins(6);
/// A live stream says something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(20);

/// What was read of each attempt.
pub(crate) type Transcript = BTreeMap<u32, Vec<u8>>;

/// How to follow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Follower {
    /// Server-sent events, at one frontend until its stream breaks off.
    Live,
    /// A question for what is new, each at another frontend.
    Polling,
}

impl Follower {
    /// Reads every attempt of the task `long` to its end.
    pub(crate) fn follow(
        self,
        workload: &Workload,
        job: &'static str,
        number: u64,
    ) -> Result<Followed> {
        let build = format!("{job}#{number}");
        let mut transcript = Transcript::new();
        loop {
            let read = u32::try_from(transcript.len())?;
            let next = within(LONGEST, "an attempt or the end", || {
                let over = workload.build(job, number)?.finished.is_some();
                let latest = workload.attempt(job, number)?.unwrap_or(0);
                Ok((over || latest > read).then_some(latest))
            });
            let latest = next.with_context(|| build.clone())?;
            if latest <= read {
                break;
            }
            let attempt = read + 1;
            let path = format!("/jobs/{job}/builds/{number}/console?task=long&attempt={attempt}");
            let mut reading = Reading {
                api: &workload.api,
                path,
                bytes: Vec::new(),
            };
            within(LONGEST, "the end of a console", || {
                // Whatever goes wrong with a frontend, the next one is asked for the rest.
                let read = match self {
                    Self::Live => reading.live(),
                    Self::Polling => reading.poll(),
                };
                match read {
                    Ok(true) => Ok(Some(())),
                    Ok(false) | Err(Trouble::Passing) => Ok(None),
                    Err(Trouble::Wrong(error)) => Err(error),
                }
            })
            .with_context(|| format!("{build}, attempt {attempt}, {self:?}"))?;
            transcript.insert(attempt, reading.bytes);
        }
        Ok(Followed {
            job,
            number,
            task: "long",
            transcript,
        })
    }
}

enum Trouble {
    /// A frontend or the way to it.
    Passing,
    /// Something that must never be answered.
    Wrong(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(_: anyhow::Error) -> Self {
        Self::Passing
    }
}

struct Reading<'a> {
    api: &'a Api,
    path: String,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Piece {
    offset: usize,
    text: String,
}

impl Reading<'_> {
    /// Reads one stream until it ends; says whether the console ends there.
    fn live(&mut self) -> Result<bool, Trouble> {
        let request = Request::get(&self.path)
            .with("accept", "text/event-stream")
            .with("last-event-id", self.bytes.len().to_string());
        let answer = self.api.once(self.api.turn(), &request, SILENCE)?;
        if answer.status != 200 {
            return Ok(false);
        }
        let mut event = String::new();
        for line in answer.lines() {
            let line = line.context("the stream broke off")?;
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                if event == "end" {
                    return Ok(true);
                }
                self.take(data).map_err(Trouble::Wrong)?;
            }
        }
        Ok(false)
    }

    fn take(&mut self, data: &str) -> Result<()> {
        let piece: Piece = serde_json::from_str(data)?;
        let have = self.bytes.len();
        ensure!(piece.offset == have, "{} after {have} bytes", piece.offset);
        self.bytes.extend_from_slice(piece.text.as_bytes());
        Ok(())
    }

    /// Asks once for what is new; says whether the console ends there.
    fn poll(&mut self) -> Result<bool, Trouble> {
        let path = format!("{}&offset={}&wait=3", self.path, self.bytes.len());
        let answer = self
            .api
            .once(self.api.turn(), &Request::get(&path), SILENCE)?;
        if answer.status != 200 {
            return Ok(false);
        }
        let complete = answer.header(CONSOLE_COMPLETE_HEADER) == Some("true");
        self.bytes.extend(answer.bytes()?);
        Ok(complete)
    }
}
