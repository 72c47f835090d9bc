//! A number of bytes as people write it: `512 MiB`, `2 GiB`, `1.5G`, or a plain number.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// The units that are shown, largest first.
const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
/// Most bytes: more than any disk has.
const MOST: u64 = 1 << 50;

impl Size {
    /// So many bytes; `None` if that is 0 or more than any disk has.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (1..=MOST).contains(&bytes).then_some(Self(bytes))
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Text that is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no number of bytes: write 512 MiB, 2 GiB or 1.5 GB")]
pub struct InvalidSize(String);

impl FromStr for Size {
    type Err = InvalidSize;

    /// `K`, `KiB` are 1024 bytes, `KB` is 1000, and so on, in any case.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.chars().take(80).collect());
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit = unit.trim().to_ascii_lowercase();
        let unit: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(invalid()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || part.is_empty() || part.len() > 9 {
            return Err(invalid());
        }
        let whole: u64 = whole.parse().map_err(|_| invalid())?;
        let tenths = 10_u128.pow(u32::try_from(part.len()).unwrap_or_default());
        let part: u64 = part.parse().map_err(|_| invalid())?;
        let part = u128::from(part) * u128::from(unit) / tenths;
        let bytes = u128::from(whole) * u128::from(unit) + part;
        let bytes = u64::try_from(bytes).map_err(|_| invalid())?;
        Self::from_bytes(bytes).ok_or_else(invalid)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        match UNITS.iter().find(fits) {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a number of bytes: \"512 MiB\", \"2 GiB\""
        )]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let size = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => bytes.to_string().parse(),
            Written::Text(text) => text.parse(),
        };
        size.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: `512 MiB`, `2 GiB`, or a plain number.",
            "type": ["string", "integer"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in ["1 B", "512 MiB", "2 GiB", "1000 B", "3 TiB", "1536 MiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for (text, bytes) in [("1.5G", 1_610_612_736), ("2 gb", 2_000_000_000), ("7", 7)] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes);
        }
        assert_eq!(
            serde_json::from_str::<Size>("1024").unwrap().to_string(),
            "1 KiB"
        );
        for wrong in [
            "",
            "0",
            "-1",
            "G",
            ".5G",
            "1.G",
            "1 PB",
            "99999999999999999999",
            "2000 TiB",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
