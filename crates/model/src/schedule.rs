//! Schedules: at which moments a cron expression of a time zone comes true.
//!
//! Owns the meaning of `cron` and `timezone` of a job file, and what is done about times that were
//! missed. A pure function of what is written: the zones are those that the program brings along, so
//! that every process of one version agrees. Invariant: no moment comes twice, and none before it.

mod fields;

use std::sync::LazyLock;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use self::fields::{DAY, Fields, HOUR, MINUTE, MONTH, WEEKDAY};
use crate::Timestamp;
use crate::config::{CatchUp, ScheduleTrigger, Trigger};
use crate::id::JobId;

/// Leap days come every eighth year at the rarest, around a century that is no leap year.
const HORIZON_DAYS: usize = 9 * 366;
/// What came within this time has not been missed: others may have been meant to notice it first.
const ON_TIME: Duration = Duration::from_mins(2);
/// How long ago the last missed moment may be that is caught up with.
const LATE: Duration = Duration::from_hours(1);
/// Most missed moments that are caught up with.
const MOST: usize = 100;

/// The zones by name, as of the program's release.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleProblem {
    /// The expression says nothing, or something that never comes.
    #[error("{0}")]
    Cron(String),
    /// There is no such zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
}

/// A cron expression of a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    fields: Fields,
    zone: TimeZone,
}

/// A stretch of time in which a zone's clocks are not set.
struct Stretch {
    begin: Timestamp,
    /// By how much they are ahead of UTC,
    offset: jiff::tz::Offset,
    /// and by how much they were before; the same if there was no before.
    before: jiff::tz::Offset,
    end: Option<Timestamp>,
}

impl Schedule {
    /// Reads `cron`, whose values `H` are chosen by `spread_by`.
    ///
    /// # Errors
    /// [`ScheduleProblem`], which says in which field, and of a moment that never comes.
    pub fn parse(cron: &str, timezone: &str, spread_by: &str) -> Result<Self, ScheduleProblem> {
        let fields = Fields::parse(cron, spread_by).map_err(ScheduleProblem::Cron)?;
        let unknown = |_| ScheduleProblem::Zone(timezone.to_owned());
        let zone = ZONES.get(timezone).map_err(unknown)?;
        Ok(Self { fields, zone })
    }

    /// The schedule of a job that has this mark.
    ///
    /// # Errors
    /// [`ScheduleProblem`].
    pub fn of(
        job: &JobId,
        mark: &str,
        cron: &str,
        timezone: &str,
    ) -> Result<Self, ScheduleProblem> {
        Self::parse(cron, timezone, &format!("{job} {mark}"))
    }

    /// The first moment after `after`.
    ///
    /// A time of day that is skipped when clocks are set forward comes at the moment at which they
    /// are; one that comes twice when they are set back counts the first time. A schedule of every
    /// hour does not mind either: it goes by the time that passes.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut stretch = self.stretch_at(after);
        let horizon = after.checked_add(Duration::from_hours(24) * 366 * 9).ok()?;
        while stretch.begin <= horizon {
            let found = self.first_in(&stretch, after);
            if found.is_some() {
                return found;
            }
            stretch = self.stretch_at(stretch.end?);
        }
        None
    }

    /// All moments after `after`.
    pub fn moments(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        let next = |moment: &Timestamp| self.next_after(*moment);
        std::iter::successors(self.next_after(after), next)
    }

    fn stretch_at(&self, at: Timestamp) -> Stretch {
        let nanosecond = Duration::from_nanos(1);
        let just_after = at.checked_add(nanosecond).unwrap_or(Timestamp::MAX);
        let begin = self.zone.preceding(just_after).next();
        let begin = begin.map_or(Timestamp::MIN, |set| set.timestamp());
        let just_before = begin.checked_sub(nanosecond).unwrap_or(begin);
        Stretch {
            begin,
            offset: self.zone.to_offset(at),
            before: self.zone.to_offset(just_before),
            end: self.zone.following(at).next().map(|set| set.timestamp()),
        }
    }

    fn first_in(&self, stretch: &Stretch, after: Timestamp) -> Option<Timestamp> {
        let was = stretch.before.to_datetime(stretch.begin);
        let is = stretch.offset.to_datetime(stretch.begin);
        let every_hour = self.fields.is_full(HOUR);
        let skips = was < is && stretch.begin > after && !every_hour;
        if skips && self.first_time(was).is_some_and(|time| time < is) {
            return Some(stretch.begin);
        }
        let mut from = is;
        if is < was && !every_hour {
            // These times have been before.
            from = was;
        }
        if after >= stretch.begin {
            let minute = stretch.offset.to_datetime(after);
            let minute = minute.with().second(0).subsec_nanosecond(0).build().ok()?;
            from = from.max(minute.checked_add(Duration::from_mins(1)).ok()?);
        }
        let time = self.first_time(from)?;
        let moment = stretch.offset.to_timestamp(time).ok()?;
        stretch.end.is_none_or(|end| moment < end).then_some(moment)
    }

    /// The first time by the clock on the wall that is not before `from`.
    fn first_time(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = (from.hour(), from.minute());
        if from.second() > 0 || from.subsec_nanosecond() > 0 {
            earliest.1 += 1;
        }
        for _ in 0..HORIZON_DAYS {
            if self.comes_on(date)
                && let Some((hour, minute)) = self.first_of_day(earliest)
            {
                return Some(date.at(hour, minute, 0, 0));
            }
            date = date.tomorrow().ok()?;
            earliest = (0, 0);
        }
        None
    }

    fn first_of_day(&self, (hour, minute): (i8, i8)) -> Option<(i8, i8)> {
        if self.fields.has(HOUR, hour)
            && let Some(minute) = self.fields.first(MINUTE, minute)
        {
            return Some((hour, minute));
        }
        let hour = self.fields.first(HOUR, hour + 1)?;
        Some((hour, self.fields.first(MINUTE, 0)?))
    }

    /// Whether it comes on this day. Of day and weekday, either is enough if both are restricted, as
    /// cron has always had it.
    fn comes_on(&self, date: Date) -> bool {
        let day = self.fields.has(DAY, date.day());
        let weekday = date.weekday().to_sunday_zero_offset();
        let weekday = self.fields.has(WEEKDAY, weekday);
        let either = !self.fields.is_full(DAY) && !self.fields.is_full(WEEKDAY);
        let is_day = if either {
            day || weekday
        } else {
            day && weekday
        };
        is_day && self.fields.has(MONTH, date.month())
    }

    /// Which of the moments after `last`, up to `now`, are to be acted on, the earliest first.
    pub fn due(&self, catch_up: CatchUp, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let back = |by: Duration| now.checked_sub(by).unwrap_or(Timestamp::MIN).max(last);
        match catch_up {
            CatchUp::None => self.last_of(back(ON_TIME), now),
            CatchUp::Last => self.last_of(back(LATE), now),
            CatchUp::All => {
                // Wider and wider, for nobody knows how often it comes.
                let mut by = LATE;
                let mut moments = self.between(back(by), now);
                while moments.len() < MOST && back(by) > last {
                    by *= 2;
                    moments = self.between(back(by), now);
                }
                moments.split_off(moments.len().saturating_sub(MOST))
            }
        }
    }

    fn last_of(&self, after: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        self.between(after, now).pop().into_iter().collect()
    }

    fn between(&self, after: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let moments = self.moments(after);
        moments.take_while(|moment| *moment <= now).collect()
    }
}

/// A moment as clocks of a zone show it, UTC if the zone is not known: `2026-10-25 02:30 +02:00`.
pub fn wall_time(timezone: &str, moment: Timestamp) -> String {
    let zone = ZONES.get(timezone).unwrap_or(TimeZone::UTC);
    let shown = moment.to_zoned(zone);
    shown.strftime("%Y-%m-%d %H:%M %:z").to_string()
}

/// The names of all time zones.
pub fn zone_names() -> Vec<String> {
    ZONES.available().map(|name| name.to_string()).collect()
}

/// A schedule among a job's triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked<'a> {
    /// The same wherever in the list the trigger stands; no two of a job have the same.
    pub mark: String,
    /// Where in the list it stands.
    pub index: usize,
    /// What is written.
    pub trigger: &'a ScheduleTrigger,
}

impl Marked<'_> {
    /// Its moments.
    ///
    /// # Errors
    /// [`ScheduleProblem`].
    pub fn schedule(&self, job: &JobId) -> Result<Schedule, ScheduleProblem> {
        Schedule::of(job, &self.mark, &self.trigger.cron, &self.trigger.timezone)
    }
}

/// The schedules among a job's triggers.
pub fn marked(triggers: &[Trigger]) -> Vec<Marked<'_>> {
    let mut all: Vec<Marked<'_>> = Vec::new();
    for (index, trigger) in triggers.iter().enumerate() {
        let Trigger::Schedule(trigger) = trigger else {
            continue;
        };
        let is_alike = |other: &&Marked<'_>| {
            let other = other.trigger;
            other.cron == trigger.cron && other.timezone == trigger.timezone
        };
        let alike = all.iter().filter(is_alike).count();
        let text = format!("{}\n{}\n{alike}", trigger.cron, trigger.timezone);
        let hash = blake3::derive_key("distci schedule mark v1", text.as_bytes());
        let mark = data_encoding::HEXLOWER.encode(&hash[..8]);
        all.push(Marked {
            mark,
            index,
            trigger,
        });
    }
    all
}

#[cfg(test)]
mod tests;
