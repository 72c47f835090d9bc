//! The five fields of a cron expression, as sets of numbers.
//!
//! Owns what may be written in a field, and what `H` stands for. Whatever is wrong is said with the
//! field's name.

/// The minute's place among the fields.
pub(super) const MINUTE: usize = 0;
/// That of the hour.
pub(super) const HOUR: usize = 1;
/// That of the day of the month.
pub(super) const DAY: usize = 2;
/// That of the month.
pub(super) const MONTH: usize = 3;
/// That of the day of the week, Sunday being 0.
pub(super) const WEEKDAY: usize = 4;

/// What may be in a field.
struct Kind {
    name: &'static str,
    least: u8,
    most: u8,
    /// The most that `H` stands for.
    spread: u8,
    /// Names of the values, from the least on.
    names: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "minute",
        least: 0,
        most: 59,
        spread: 59,
        names: &[],
    },
    Kind {
        name: "hour",
        least: 0,
        most: 23,
        spread: 23,
        names: &[],
    },
    Kind {
        name: "day of the month",
        least: 1,
        most: 31,
        // A day that every month has.
        spread: 28,
        names: &[],
    },
    Kind {
        name: "month",
        least: 1,
        most: 12,
        spread: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Kind {
        name: "day of the week",
        least: 0,
        // Both 0 and 7 are Sunday.
        most: 7,
        spread: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

/// The most days that each month ever has.
const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

const SHORT: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A set of numbers below 64 for each field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields([u64; 5]);

impl Fields {
    pub(super) fn parse(cron: &str, spread_by: &str) -> Result<Self, String> {
        let written = long_form(cron.trim())?;
        let parts: Vec<&str> = written.split_whitespace().collect();
        let Ok(parts) = <[&str; 5]>::try_from(parts.as_slice()) else {
            let count = parts.len();
            let seconds = if count == 6 {
                "; seconds and years cannot be given"
            } else {
                ""
            };
            return Err(format!(
                "{count} fields instead of 5: minute, hour, day of the month, month, day of the \
                 week{seconds}"
            ));
        };
        let hash = blake3::derive_key("distci schedule spread v1", spread_by.as_bytes());
        let mut sets = [0; 5];
        for (field, (kind, text)) in KINDS.iter().zip(parts).enumerate() {
            let four = [hash[4 * field], hash[4 * field + 1], hash[4 * field + 2], 0];
            let set = kind.parse(text, u32::from_le_bytes(four));
            sets[field] = set.map_err(|why| format!("{} {text:?}: {why}", kind.name))?;
        }
        let sunday_as_7 = sets[WEEKDAY] >> 7 & 1;
        sets[WEEKDAY] = (sets[WEEKDAY] | sunday_as_7) & 0x7f;
        let fields = Self(sets);
        fields.check_days()?;
        Ok(fields)
    }

    /// Refuses days that no month has.
    fn check_days(&self) -> Result<(), String> {
        // Of a restricted weekday, there is one in every month.
        if !self.is_full(WEEKDAY) && !self.is_full(DAY) {
            return Ok(());
        }
        let first = self.first(DAY, 1).unwrap_or_default();
        let has = |(days, month): (u8, i8)| self.has(MONTH, month) && first.cast_unsigned() <= days;
        if MONTH_DAYS.into_iter().zip(1..).any(has) {
            return Ok(());
        }
        Err(format!(
            "it never comes: no month of these has a day {first}"
        ))
    }

    /// Whether a field has a value.
    pub(super) fn has(&self, field: usize, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.0[field] >> value & 1 == 1)
    }

    /// The first value of a field that is not below `from`.
    pub(super) fn first(&self, field: usize, from: i8) -> Option<i8> {
        let from = u32::try_from(from).ok().filter(|from| *from < 64)?;
        let left = self.0[field] >> from << from;
        (left != 0).then_some(())?;
        i8::try_from(left.trailing_zeros()).ok()
    }

    /// Whether a field has all its values.
    pub(super) fn is_full(&self, field: usize) -> bool {
        let Kind { least, most, .. } = KINDS[field];
        let most = if field == WEEKDAY { 6 } else { most };
        self.0[field] == every(least, most, 1)
    }
}

fn long_form(written: &str) -> Result<&str, String> {
    if !written.starts_with('@') {
        return Ok(written);
    }
    let long = SHORT.iter().find(|(short, _)| *short == written);
    long.map(|(_, long)| *long).ok_or_else(|| {
        let known: Vec<_> = SHORT.iter().map(|(short, _)| *short).collect();
        format!("{written:?} is not known: there are {}", known.join(", "))
    })
}

/// The numbers from `least` to `most`, in steps.
fn every(least: u8, most: u8, step: u8) -> u64 {
    let values = (least..=most).step_by(usize::from(step.max(1)));
    values.fold(0, |set, value| set | 1 << value)
}

impl Kind {
    fn parse(&self, text: &str, hash: u32) -> Result<u64, String> {
        let mut entries = text.split(',').map(|entry| self.entry(entry, hash));
        entries.try_fold(0, |set, entry| Ok(set | entry?))
    }

    fn entry(&self, text: &str, hash: u32) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (text, None),
        };
        if let Some(inner) = range.strip_prefix(['H', 'h']) {
            let (least, most) = match inner {
                "" => (self.least, self.spread),
                inner => {
                    let inner = inner.strip_prefix('(').and_then(|i| i.strip_suffix(')'));
                    let bounds = inner.and_then(|inner| inner.split_once('-'));
                    let (from, to) = bounds.ok_or("write H, H(1-5), H/15 or H(0-29)/10")?;
                    self.ordered(self.value(from)?, self.value(to)?)?
                }
            };
            let span = most - least + 1;
            let chosen = |of: u8| least + u8::try_from(hash % u32::from(of)).unwrap_or_default();
            return Ok(match step {
                None => 1 << chosen(span),
                Some(step) => every(chosen(step.min(span)), most, step),
            });
        }
        let (least, most) = match (range, range.split_once('-')) {
            ("*", _) => (self.least, self.most),
            (_, Some((from, to))) => self.ordered(self.value(from)?, self.value(to)?)?,
            (one, None) => {
                let one = self.value(one)?;
                (one, if step.is_some() { self.most } else { one })
            }
        };
        // Sunday has two numbers, but steps through all days count it once.
        let most = if range == "*" { self.end() } else { most };
        Ok(every(least, most, step.unwrap_or(1)))
    }

    fn end(&self) -> u8 {
        if self.name == KINDS[WEEKDAY].name {
            6
        } else {
            self.most
        }
    }

    fn step(&self, text: &str) -> Result<u8, String> {
        let span = self.most - self.least + 1;
        let step = text.parse().ok().filter(|step| (1..=span).contains(step));
        step.ok_or_else(|| format!("the step {text:?} is not a number from 1 to {span}"))
    }

    fn ordered(&self, from: u8, to: u8) -> Result<(u8, u8), String> {
        if from > to {
            return Err(format!(
                "{from} comes after {to}; write {from}-{end},{least}-{to}",
                end = self.end(),
                least = self.least
            ));
        }
        Ok((from, to))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(place) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.least + u8::try_from(place).unwrap_or_default());
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|_| digits);
        let value = value.filter(|value| (self.least..=self.most).contains(value));
        value.ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("{text:?} is not {} to {}{names}", self.least, self.most)
        })
    }
}
