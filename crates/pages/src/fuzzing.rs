//! What must hold of this crate's rendering for any bytes. Tests and `cargo xtask fuzz` call it.

use crate::console_lines;

/// Of the lines of a console: what is shown of them is text in our own tags, and nothing that a browser
/// or a terminal would obey.
///
/// # Panics
/// If it does not.
pub fn console(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    for line in console_lines(lines.map(|line| (line, 0))) {
        let mut depth = 0_i32;
        let mut rest = &*line;
        while let Some(at) = rest.find('<') {
            let (tag, after) = rest[at..].split_once('>').unwrap_or_default();
            let ours = tag.starts_with("<span class=\"") || tag == "</span";
            assert!(ours, "{tag} in {line}");
            depth += if tag == "</span" { -1 } else { 1 };
            assert!(depth >= 0, "{line}");
            rest = after;
        }
        assert_eq!(depth, 0, "{line}");
        let obeyed = |letter: char| letter.is_control() && letter != '\t';
        assert!(!line.contains(obeyed), "{line:?}");
    }
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;

    #[test]
    fn consoles_hold_for_any_bytes() {
        let examples: [&[u8]; 4] = [
            b"plain\n\x1b[1;31merror\x1b[0m: left\n\x1b[38;5;200mx\x1b[48;2;1;2;3my\n",
            b"10%\r50%\r100%\n::group::Build\nok\n::endgroup::\n",
            b"\x1b]8;;https://example.org\x07link\x1b]8;;\x07 \x1b[2J\x1b[1;1H<script>alert(1)</script>\n",
            "tabs\tand \u{202e}bidi\u{202c} and \u{1F600}\n".as_bytes(),
        ];
        let words = [
            "\x1b[",
            "\x1b]",
            "\x07",
            "\x1b\\",
            "m",
            "\r",
            "<b>",
            "&lt;",
            "\x08",
            ";",
            "\x1bP",
            "\u{9b}31m",
        ];
        rounds(&examples, &words, 30_000, super::console);
    }
}
