//! Bytes that are nearly right.
//!
//! Owns how inputs go wrong: bits, bytes, numbers, lengths, order, repetition, and words that mean
//! something to the reader. Knows no format but the sums in a tar. Tests hand it examples and a body that must hold for any
//! bytes; it hands the body thousands of inputs, the same in each run. `cargo xtask fuzz` runs the same
//! bodies for as long as one likes, led by what the code covers.

use fastrand::Rng;

/// No input is longer: what matters is form, and readers are bounded elsewhere.
const LONGEST: usize = 64 * 1024;

/// Runs a body over so many inputs drawn from examples; `words` are texts that mean something to it.
///
/// # Panics
/// As the body does; the input is then on standard error.
pub fn rounds(examples: &[&[u8]], words: &[&str], count: u64, body: impl Fn(&[u8])) {
    for example in examples {
        run(example, &body);
    }
    for seed in 0..count {
        let mut chance = Rng::with_seed(seed);
        let mut input = match examples.len() {
            0 => Vec::new(),
            many => examples[chance.usize(..many)].to_vec(),
        };
        for _ in 0..chance.u8(1..=6) {
            distort(&mut input, examples, words, &mut chance);
            input.truncate(LONGEST);
        }
        run(&input, &body);
    }
}

/// Gives every header of a tar the sum that it is to have: a reader looks at nothing else of one whose
/// sum is wrong.
pub fn seal_tar(archive: &mut [u8]) {
    const SUM: std::ops::Range<usize> = 148..156;
    const SIZE: std::ops::Range<usize> = 124..135;
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512) {
        let octal = std::str::from_utf8(&header[SIZE]).unwrap_or_default();
        let octal = octal.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(octal, 8).unwrap_or(0);
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let content = size.div_ceil(512).saturating_mul(512);
        at = at.saturating_add(512).saturating_add(content);
    }
}

fn run(input: &[u8], body: &impl Fn(&[u8])) {
    let told = Told(input);
    body(input);
    std::mem::forget(told);
}

/// Tells of an input whose body did not come back.
struct Told<'a>(&'a [u8]);

impl Drop for Told<'_> {
    #[expect(clippy::print_stderr, reason = "a failing test says what it failed on")]
    fn drop(&mut self) {
        eprintln!("the input was {:?}", String::from_utf8_lossy(self.0));
        eprintln!("in bytes {:?}", self.0);
    }
}

/// Makes one change.
fn distort(input: &mut Vec<u8>, examples: &[&[u8]], words: &[&str], chance: &mut Rng) {
    let at = chance.usize(..=input.len());
    let to = chance.usize(at..=input.len());
    match chance.u8(..12) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << chance.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = chance.u8(..);
            }
        }
        2 => drop(input.drain(at..to)),
        3 => input.truncate(at),
        4 => {
            let copy = input[at..to].to_vec();
            insert(input, at, &copy);
        }
        5 => {
            let many = chance.usize(1..2000);
            let byte = input.get(at).copied().unwrap_or(b'[');
            insert(input, at, &vec![byte; many]);
        }
        6 => {
            let noise: Vec<u8> = (0..chance.usize(1..16)).map(|_| chance.u8(..)).collect();
            insert(input, at, &noise);
        }
        7 if !examples.is_empty() => {
            let other = examples[chance.usize(..examples.len())];
            let from = chance.usize(..=other.len());
            insert(input, at, &other[from..]);
        }
        8 => renumber(input, at, chance),
        9 => insert(input, at, chance.choice(ODD).unwrap_or_default()),
        _ => {
            let word = chance.choice(words).unwrap_or(&"\0");
            insert(input, at, word.as_bytes());
        }
    }
}

/// Pieces on which readers of any text stumble.
const ODD: [&[u8]; 14] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"../",
    b"<",
    b"&",
    "\u{202e}".as_bytes(),
    "\u{1F600}".as_bytes(),
];

/// Numbers at which readers stumble.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "+1",
    "007",
    "1e400",
    "255",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
];

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

/// Puts another number in the place of the next one.
fn renumber(input: &mut Vec<u8>, from: usize, chance: &mut Rng) {
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let Some(skip) = input[from..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let at = from + skip;
    let to = at + digits(&input[at..]);
    let number = chance.choice(NUMBERS).unwrap_or("0");
    drop(input.splice(at..to, number.bytes()));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn inputs_differ_and_come_again() {
        let draw = || {
            let seen = RefCell::new(Vec::new());
            rounds(&[b"{\"number\": 12}"], &["word"], 500, |input| {
                seen.borrow_mut().push(input.to_vec());
            });
            seen.into_inner()
        };
        let first = draw();
        assert_eq!(first, draw());
        let different: BTreeSet<_> = first.iter().collect();
        assert!(different.len() > 450, "{} of 501", different.len());
    }

    #[test]
    #[should_panic(expected = "found")]
    fn what_is_wrong_with_few_inputs_is_found() {
        rounds(&[b"number 12"], &[], 5000, |input| {
            assert!(!input.windows(3).any(|part| part == b"255"), "found");
        });
    }
}
