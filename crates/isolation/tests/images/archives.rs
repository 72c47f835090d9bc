//! Archives made by hand: good ones, and such as nobody should unpack.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A tar in the making.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// An entry of any kind, under any name: what a hostile archiver would write.
    pub(crate) fn entry(mut self, kind: EntryType, name: &str, rest: (u32, u64, &str)) -> Self {
        let (mode, owner, content) = rest;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        let links = matches!(kind, EntryType::Symlink | EntryType::Link);
        if links {
            old.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let bytes = if links { "" } else { content }.as_bytes();
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000_000);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, (0o644, 0, content))
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, (0o755, 0, ""))
    }

    pub(crate) fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name, (0o777, 0, to))
    }

    pub(crate) fn hard_link(self, name: &str, of: &str) -> Self {
        self.entry(EntryType::Link, name, (0o644, 0, of))
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    pub(crate) fn write(self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }
}

/// An OCI archive of these layers; the second is compressed by gzip and the third by zstd.
pub(crate) fn oci(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let layout = folder.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        let digest = HEXLOWER.encode(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        format!("sha256:{digest}")
    };
    let packed = layers.iter().enumerate().map(|(number, layer)| {
        let packed = match number % 3 {
            1 => through("gzip", layer),
            2 => zstd::encode_all(layer.as_slice(), 0).unwrap(),
            _ => layer.clone(),
        };
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob(&packed)})
    });
    let packed: Vec<_> = packed.collect();
    let config = blob(configuration(layers).to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": {"digest": config}, "layers": packed});
    let manifest = blob(manifest.to_string().as_bytes());
    let platform = |architecture: &str| json!({"architecture": architecture, "os": "linux"});
    let inner = json!({"manifests": [
        {"digest": "sha256:none", "platform": platform("unknown")},
        {"digest": manifest, "platform": platform(architecture())},
    ]});
    let inner = blob(inner.to_string().as_bytes());
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"manifests": [{"mediaType": kind, "digest": inner}]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion": "1.0.0"}"#,
    )
    .unwrap();
    layout
}

/// The same in the form of `docker save`, as an archive.
pub(crate) fn saved(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let layout = folder.join("saved");
    fs::create_dir_all(&layout).unwrap();
    let name = |number: usize| format!("{number}/layer.tar");
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir(layout.join(number.to_string())).unwrap();
        fs::write(layout.join(name(number)), layer).unwrap();
    }
    let names: Vec<_> = (0..layers.len()).map(name).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": names}]);
    fs::write(layout.join("manifest.json"), manifest.to_string()).unwrap();
    fs::write(layout.join("c.json"), configuration(layers).to_string()).unwrap();
    archive(&layout)
}

/// The archive of a layout.
pub(crate) fn archive(layout: &Path) -> PathBuf {
    let path = layout.with_extension("tar");
    let mut archive = tar::Builder::new(File::create(&path).unwrap());
    archive.append_dir_all(".", layout).unwrap();
    archive.finish().unwrap();
    path
}

fn configuration(layers: &[Vec<u8>]) -> serde_json::Value {
    let digest = |layer: &Vec<u8>| format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(layer)));
    let digests: Vec<_> = layers.iter().map(digest).collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": ["PATH=/opt/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a tool makes of bytes.
pub(crate) fn through(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let done = Command::new(tool).arg("-c").arg(&path).output().unwrap();
    assert!(done.status.success(), "{tool}: {done:?}");
    done.stdout
}
