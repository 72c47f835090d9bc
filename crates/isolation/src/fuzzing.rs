//! What must hold of this crate's parsers for any bytes. Tests and `cargo xtask fuzz` call it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use tempfile::TempDir;

use crate::qemu::wire::{Frame, Head, length};
use crate::{image, parcel};

/// Stands beside the folders that archives are laid in.
const WITNESS: &str = "witness";

/// Of what a virtual machine says: it is no message, or what it says can be said again.
///
/// # Panics
/// If it does not.
pub fn agent(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<5>() else {
        return;
    };
    if let Ok(length) = length(*head) {
        assert!(length <= 16 << 20, "{length} bytes for one message");
    }
    let Ok(frame) = Frame::from_bytes(*head, body.to_vec()) else {
        return;
    };
    let again = frame.to_bytes().map(|bytes| {
        let (head, body) = bytes.split_at(size_of::<Head>());
        Frame::from_bytes(head.try_into().unwrap_or_default(), body.to_vec())
    });
    let (told, again) = (format!("{frame:?}"), format!("{again:?}"));
    assert_eq!(again, format!("Ok(Ok({told}))"));
}

/// Of an archive that a virtual machine hands back: nothing of it lands anywhere but in the folders meant
/// for it.
///
/// # Panics
/// If it does not.
pub fn parcel(data: &[u8]) {
    let done = within(|place| {
        let folders = ["0", "1"].map(|name| place.join(name));
        folders.iter().try_for_each(fs::create_dir)?;
        // Refused or unpacked: both are answers.
        drop(parcel::unpack(&*sealed(data), &folders));
        folders.iter().try_for_each(|folder| parcel::clear(folder))
    });
    assert!(done.is_ok(), "{done:?}");
}

/// Of a layer of an image: nothing of it lands anywhere but in the image, and what it is refused for is
/// its fault.
///
/// # Panics
/// If it does not.
pub fn image_layer(data: &[u8]) {
    let done = within(|place| match image::lay_in(place, &sealed(data)) {
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(()),
        done => done,
    });
    assert!(done.is_ok(), "{done:?}");
}

fn sealed(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    distci_hostile::seal_tar(&mut archive);
    archive
}

/// Does something in a folder beside which nothing may change.
fn within(work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let dir = TempDir::new()?;
    let (place, witness) = (dir.path().join("place"), dir.path().join(WITNESS));
    fs::create_dir(&place)?;
    fs::write(&witness, "as it was")?;
    work(&place)?;
    assert_eq!(fs::read(&witness)?, b"as it was");
    assert_eq!(fs::read_dir(dir.path())?.count(), 2);
    Ok(())
}

#[cfg(test)]
mod tests {
    use distci_hostile::rounds;
    use tar::{Builder, EntryType, Header};

    use super::*;

    /// An archive with an entry of each kind, in the folder of this name.
    fn archive(folder: &str, entries: &[(&str, EntryType, &str)]) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, what) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_mtime(1_700_000_000);
            header.set_uid(0);
            header.set_gid(0);
            let content = if kind.is_file() { *what } else { "" };
            header.set_size(content.len() as u64);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name(what)?;
            }
            // Written as it is: the library would refuse what leads elsewhere.
            let path = format!("{folder}{name}");
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, content.as_bytes())?;
        }
        archive.into_inner()
    }

    const ENTRIES: [(&str, EntryType, &str); 5] = [
        ("d", EntryType::Directory, ""),
        ("d/f", EntryType::Regular, "content"),
        ("l", EntryType::Symlink, "../../witness"),
        ("h", EntryType::Link, "0/d/f"),
        ("e", EntryType::Regular, ""),
    ];
    const WORDS: [&str; 8] = [
        "../",
        "/",
        "witness",
        "l/",
        ".wh.",
        ".wh..wh..opq",
        "0/",
        "\u{7f}\u{7f}\u{7f}\u{7f}",
    ];

    #[test]
    fn messages_of_a_machine_hold_for_any_bytes() {
        let report = br#"e\0\0\0\0{"status":0}"#;
        let fault = b"f\0\0\0\0{\"doing\":\"a\",\"why\":\"b\",\"blame\":\"Worker\"}";
        let examples: [&[u8]; 5] = [b"h\0\0\0\0", b"s\0\0\0\0", b"o\0\0\0\x02hi", report, fault];
        rounds(&examples, &["null", "{}", "\"", "Image"], 20_000, agent);
    }

    #[test]
    fn parcels_hold_for_any_bytes() {
        let whole = archive("0/", &ENTRIES).unwrap();
        let elsewhere = archive("../", &ENTRIES[1..2]).unwrap();
        rounds(&[&whole, &elsewhere], &WORDS, 4_000, parcel);
    }

    /// A time that no clock reaches is no reason to fall.
    #[test]
    fn an_archive_from_the_end_of_time_is_refused() {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        header.set_mtime(u64::MAX);
        archive.append_data(&mut header, "0/f", &b""[..]).unwrap();
        parcel(&archive.into_inner().unwrap());
    }

    #[test]
    fn layers_of_images_hold_for_any_bytes() {
        let mut entries = ENTRIES;
        entries[3].2 = "d/f";
        let whole = archive("", &entries).unwrap();
        let gone = archive("d/", &[(".wh.f", EntryType::Regular, "")]).unwrap();
        rounds(&[&whole, &gone], &WORDS, 4_000, image_layer);
    }
}
