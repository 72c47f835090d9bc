//! The files by which a script names values: `KEY=VALUE`, or `KEY<<END`, lines, `END`.

use std::collections::BTreeMap;

/// What a file of values holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// The values; of two for one key the last counts.
    pub(super) taken: BTreeMap<String, String>,
    /// What could not be taken, and why, for people.
    pub(super) refused: Vec<String>,
}

impl Values {
    /// Reads `file`. Takes names that `is_allowed`, as long as they fit into `room`.
    pub(super) fn parse(file: &[u8], is_allowed: impl Fn(&str) -> bool, room: &mut usize) -> Self {
        let mut values = Self::default();
        let Ok(text) = std::str::from_utf8(file) else {
            values
                .refused
                .push("not UTF-8, so nothing of it is taken".to_owned());
            return values;
        };
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if line.trim().is_empty() {
                continue;
            }
            match read(line, lines.by_ref().map(|(_, line)| line)) {
                Ok((name, _)) if !is_allowed(name) => {
                    values.refuse(number, &format!("{name:?} may not be set"));
                }
                Ok((name, value)) => {
                    if let Err(why) = values.take(name, value, room) {
                        values.refuse(number, &why);
                    }
                }
                Err(why) => values.refuse(number, &why),
            }
        }
        values
    }

    fn refuse(&mut self, number: usize, why: &str) {
        self.refused.push(format!("line {}: {why}", number + 1));
    }

    fn take(&mut self, name: &str, value: String, room: &mut usize) -> Result<(), String> {
        let before = self
            .taken
            .remove(name)
            .map_or(0, |before| name.len() + before.len());
        *room += before;
        let bytes = name.len() + value.len();
        if value.contains('\0') {
            return Err(format!("the value of {name:?} holds a NUL"));
        }
        if bytes > *room {
            return Err(format!("no room is left for {name:?} with {bytes} bytes"));
        }
        *room -= bytes;
        self.taken.insert(name.to_owned(), value);
        Ok(())
    }
}

/// One value that begins with `line`; `more` are the lines after it.
fn read<'a>(
    line: &'a str,
    mut more: impl Iterator<Item = &'a str>,
) -> Result<(&'a str, String), String> {
    let heredoc = line
        .split_once("<<")
        .filter(|(name, _)| !name.contains('='));
    if let Some((name, end)) = heredoc {
        let end = end.trim();
        let mut value: Vec<&str> = Vec::new();
        loop {
            match more.next() {
                Some(line) if line == end && !end.is_empty() => {
                    return named(name, value.join("\n"));
                }
                Some(line) => value.push(line),
                None => return Err(format!("no line is {end:?}, as {name:?} promises")),
            }
        }
    }
    match line.split_once('=') {
        Some((name, value)) => named(name, value.to_owned()),
        None => Err("neither KEY=VALUE nor KEY<<END".to_owned()),
    }
}

fn named(name: &str, value: String) -> Result<(&str, String), String> {
    let name = name.trim();
    if name.is_empty() {
        Err("there is no name".to_owned())
    } else {
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, mut room: usize) -> Values {
        Values::parse(
            text.as_bytes(),
            |name| !name.starts_with("DISTCI_"),
            &mut room,
        )
    }

    #[test]
    fn both_forms_are_read() {
        let values = parse("A=1\n\nB = x=y \nC<<EOF\none\n\ntwo=2\nEOF\nA=3\n", 1000);
        let expected = [("A", "3"), ("B", " x=y "), ("C", "one\n\ntwo=2")];
        let taken: Vec<_> = values
            .taken
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(taken, expected);
        assert!(values.refused.is_empty());
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let values = parse(
            "DISTCI_SHA=x\nnonsense\n=v\nBIG=0123456789\nOK=1\nC<<EOF\nnever\n",
            6,
        );
        assert_eq!(values.taken.len(), 1);
        assert_eq!(values.refused.len(), 5);
        assert!(values.refused[0].starts_with("line 1: \"DISTCI_SHA\""));
        let mut room = 100;
        assert_eq!(
            Values::parse(b"A=\xff", |_| true, &mut room).refused.len(),
            1
        );
    }
}
