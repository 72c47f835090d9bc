//! Searching the consoles of many builds: the form, and what was found.

use std::time::Duration;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::Timestamp;
use distci_pages::{Found, Place, Search, SearchWish};
use serde::Deserialize;

use super::{Seat, page};
use crate::api::grep::{self, Searched};
use crate::error::ApiError;

/// What is wanted, as the form says it: what is left empty is not asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    q: String,
    job: String,
    task: String,
    /// How old builds may be, such as `7d`.
    since: String,
    regex: bool,
    ignore_case: bool,
    failed: bool,
    cursor: Option<String>,
}

pub(super) async fn show(seat: Seat, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    let asked = match wanted.q.as_str() {
        "" => Ok(None),
        _ => wanted.meant(seat.app.now()).map(Some),
    };
    let searched = match asked {
        Ok(None) => Ok(Searched::default()),
        Ok(Some(asked)) => match grep::search(&seat.app, &asked).await {
            Err(error) => match error.complaint().map(str::to_owned) {
                Some(complaint) => Err(complaint),
                None => return Err(error),
            },
            Ok(searched) => Ok(searched),
        },
        Err(complaint) => Err(complaint),
    };
    let (searched, refused) = match searched {
        Ok(searched) => (searched, None),
        Err(complaint) => (Searched::default(), Some(complaint)),
    };
    let status = match refused {
        Some(_) => StatusCode::BAD_REQUEST,
        None => StatusCode::OK,
    };
    let next = searched.next.clone().zip(searched.reached.clone());
    let search = Search {
        frame: seat.frame(Place::Search),
        now: seat.app.now(),
        is_later: wanted.cursor.is_some(),
        wish: wanted.wish(),
        refused,
        found: by_build(searched),
        next,
    };
    page(status, &search)
}

impl Wanted {
    /// The search that is meant, or what is wrong with it.
    fn meant(&self, now: Timestamp) -> Result<grep::Wanted, String> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let task = given(&self.task).map(|task| task.parse()).transpose();
        let since = given(&self.since)
            .map(|age| moment(&age, now))
            .transpose()?;
        Ok(grep::Wanted {
            q: self.q.clone(),
            regex: self.regex,
            ignore_case: self.ignore_case,
            job: given(&self.job),
            task: task.map_err(|error| format!("the task: {error}"))?,
            since,
            failed: self.failed,
            cursor: self.cursor.clone(),
        })
    }

    fn wish(self) -> SearchWish {
        SearchWish {
            text: self.q,
            job: self.job,
            task: self.task,
            since: self.since,
            regex: self.regex,
            ignore_case: self.ignore_case,
            failed: self.failed,
        }
    }
}

/// The moment so long ago: `90m`, `12h`, `7d`; or that moment itself.
fn moment(age: &str, now: Timestamp) -> Result<Timestamp, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let wrong = || "since when: a time such as 90m, 12h or 7d is expected".to_owned();
    if let Ok(moment) = age.parse() {
        return Ok(moment);
    }
    let read = || {
        let unit = age.chars().next_back()?;
        let (_, seconds) = units.into_iter().find(|(name, _)| *name == unit)?;
        let number: u64 = age.strip_suffix(unit)?.parse().ok()?;
        let ago = Duration::from_secs(number.checked_mul(seconds)?);
        now.checked_sub(ago).ok()
    };
    read().ok_or_else(wrong)
}

fn by_build(searched: Searched) -> Vec<Found> {
    let mut lines = searched.lines.into_iter().peekable();
    let builds = searched.builds.into_iter();
    builds
        .map(|(build, summary)| Found {
            lines: std::iter::from_fn(|| lines.next_if(|line| line.build == build)).collect(),
            build: build.clone(),
            summary,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let read = |age| moment(age, now).map(Timestamp::as_second);
        assert_eq!(read("90m"), Ok(1_000_000 - 5400));
        assert_eq!(read("7d"), Ok(1_000_000 - 7 * 86400));
        assert_eq!(read("1970-01-01T00:00:09Z"), Ok(9));
        for wrong in [
            "7",
            "d",
            "-1d",
            "7w",
            "99999999999999999999d",
            "9999999999999d",
            "ü",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
