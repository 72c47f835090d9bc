//! Small things in words: addresses, sizes, causes.

use std::fmt::{self, Write};

use distci_model::build::Cause;
use distci_model::event::{Event, EventKind};

/// A text as one segment of an address, or the value of a query: everything but the plainest
/// characters is spelled out.
pub(crate) struct Segment<'a>(pub(crate) &'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    f.write_char(char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// A path below an address: as [`Segment`], but what separates its segments stays.
pub(crate) struct Below<'a>(pub(crate) &'a str);

impl fmt::Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.split('/').enumerate() {
            if place > 0 {
                f.write_char('/')?;
            }
            Segment(segment).fmt(f)?;
        }
        Ok(())
    }
}

/// The beginning of a text, with a sign that there is more.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let beginning = text.chars().take(most.saturating_sub(1));
    beginning.chain(['…']).collect()
}

/// A number of bytes: `512 B`, `1.4 MiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes >> shift > 0 {
                let tenths = (bytes >> (shift - 10)) * 10 / 1024;
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{bytes} B")
    }
}

/// A number that may be large: `3,000,000`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Why a build exists, in a few words.
pub(crate) fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Manual => "by hand".to_owned(),
        Cause::Upstream { build } => format!("after {build}"),
        Cause::Rerun { of, .. } => format!("again, of #{}", of.number),
        Cause::Event { told } => event(told),
    }
}

fn event(told: &Event) -> String {
    let fact = |name| told.fact(name);
    match told.kind {
        EventKind::PullRequest => match fact("pr") {
            Some(number) => format!("pull request {number}"),
            None => "pull request".to_owned(),
        },
        EventKind::Tag => fact("tag").map_or_else(|| "tag".to_owned(), |tag| format!("tag {tag}")),
        kind @ (EventKind::Push | EventKind::Poll | EventKind::Delete) => {
            let word = kind.as_str();
            let branch = fact("branch");
            branch.map_or_else(|| word.to_owned(), |branch| format!("{word} to {branch}"))
        }
        kind @ (EventKind::Release
        | EventKind::MergeGroup
        | EventKind::Rerequest
        | EventKind::Webhook
        | EventKind::Schedule) => kind.as_str().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_beginnings() {
        let told = |bytes| Bytes(bytes).to_string();
        assert_eq!(told(1023), "1023 B");
        assert_eq!(told(1536), "1.5 KiB");
        assert_eq!(told(u64::MAX), "16777215.9 TiB");
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        let spelled = |text| Segment(text).to_string();
        assert_eq!(spelled("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(spelled("a/../?x=#&\"<"), "a%2F..%2F%3Fx%3D%23%26%22%3C");
        assert_eq!(spelled("ü"), "%C3%BC");
    }
}
