//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use std::io;

use distci_model::config::ReportFormat;

use crate::reports::{self, Gathering};
use crate::workspace::layer::{self, LayerError, Part};

/// Of a report of tests, whose first byte says in which format: it is refused with the place, or has as
/// many tests as it counts.
///
/// # Panics
/// If it does not.
pub fn test_report(data: &[u8]) {
    let Some((format, report)) = data.split_first() else {
        return;
    };
    let format = match format % 3 {
        0 => ReportFormat::Junit,
        1 => ReportFormat::Tap,
        _ => ReportFormat::Libtest,
    };
    let mut gathering = Gathering::default();
    if let Err(broken) = reports::read(format, report, &mut gathering) {
        let lines = report.split(|byte| *byte == b'\n').count();
        assert!(
            (1..=lines).contains(&broken.line),
            "line {} of {lines}",
            broken.line
        );
    }
    let report = gathering.finish();
    assert_eq!(report.check(), Ok(()));
    let written = serde_json::to_vec(&report).unwrap_or_default();
    assert_eq!(serde_json::from_slice(&written).ok(), Some(report));
}

/// Of a layer before it is packed: it is refused, or read to its end.
///
/// # Panics
/// If it does not.
pub fn layer(data: &[u8]) {
    let mut data = data.to_vec();
    distci_hostile::seal_tar(&mut data);
    let Ok(packed) = zstd::encode_all(&*data, 1) else {
        return;
    };
    let read = layer::read(&*packed, |part| {
        if let Part::Content(_, content) = part {
            io::copy(content, &mut io::sink()).map_err(LayerError::Io)?;
        }
        Ok::<(), LayerError>(())
    });
    // Refused or read: both are answers.
    drop(read);
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;

    use super::layer;
    use crate::workspace::snapshot::Snapshot;

    #[test]
    fn reports_hold_for_any_bytes() {
        let junit = br#"\0<?xml version="1.0"?><testsuites><testsuite name="s" tests="2"><testcase
            classname="c" name="adds" time="0.2"/><testcase name="fails"><failure message="left: 1">
            <![CDATA[at a.rs:7]]></failure><system-out>x &amp; y</system-out></testcase></testsuite></testsuites>"#;
        let junit = [&[0], &junit[2..]].concat();
        let tap = b"\x01TAP version 14\n1..3\nok 1 - adds\nnot ok 2 - fails # TODO later\n  ---\n  message: 'x'\n  ...\n    ok 1 - inner\n    1..1\nok 3 - outer # SKIP no\n";
        let libtest = b"\x02{\"type\":\"suite\",\"event\":\"started\",\"test_count\":1}\n{\"type\":\"test\",\"event\":\"failed\",\"name\":\"a::b\",\"exec_time\":0.1,\"stdout\":\"boom\"}\n";
        let examples: [&[u8]; 3] = [&junit, tap, libtest];
        let words = [
            "<testcase>",
            "</testcase>",
            "<skipped/>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]>",
            "&b;",
            "<![CDATA[",
            "ok ",
            "not ok ",
            "Bail out!",
            "    ",
            "# SKIP",
            "---",
            "...",
            "{",
            "}\n",
            "1..9999999999",
        ];
        rounds(&examples, &words, 20_000, super::test_report);
    }

    #[test]
    fn layers_hold_for_any_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("workspace");
        std::fs::create_dir(&root).unwrap();
        let before = Snapshot::take(&root).unwrap();
        std::fs::write(root.join("a.txt"), "text").unwrap();
        std::fs::create_dir(root.join("folder")).unwrap();
        std::fs::write(root.join("folder/b"), [0; 600]).unwrap();
        std::os::unix::fs::symlink("a.txt", root.join("link")).unwrap();
        let changes = before.changes(&Snapshot::take(&root).unwrap());
        let file = dir.path().join("layer");
        layer::write(&root, &changes, &file).unwrap();
        let plain = zstd::decode_all(&*std::fs::read(file).unwrap()).unwrap();
        let words = ["\"bytes\":", "../", "/", "null", "\0\0\0\0", "ustar", "777"];
        rounds(&[&plain], &words, 5_000, layer);
    }
}
