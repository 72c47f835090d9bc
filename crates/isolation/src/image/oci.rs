//! Images of container tools: which layers one has, and what its configuration says.
//!
//! Reads the layout that OCI describes and the older one of `docker save`. What is read is checked
//! against the digests that the image is known by; a layer's is that of its content, so it does not
//! matter how that was compressed. Of the configuration only the environment is kept.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::archive::{Base, Laying, Plain};
use super::tree::Tree;

/// Most bytes of a manifest or a configuration.
const MOST: u64 = 4 * 1024 * 1024;
/// How deep indexes may lie in each other.
const DEPTH: usize = 4;

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// What `docker save` writes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    config: Option<Settings>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    #[serde(rename = "Env", default)]
    env: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Lays the image in the folder `layout` on `tree`, and says what environment it wants.
///
/// # Errors
/// Of kind `InvalidData`, if it is no good, and what [`Laying::lay`] says.
pub(super) fn lay(
    layout: &Path,
    tree: &Tree,
    stop: &CancellationToken,
) -> io::Result<Vec<(String, String)>> {
    let layout = Tree::at(layout)?;
    let (configuration, layers) = find(&layout)?;
    let Platform { architecture, os } = &configuration.platform;
    if (os.as_str(), architecture.as_str()) != ("linux", architecture_here()) {
        let here = architecture_here();
        let why = format!("it is for {os} on {architecture}, and this machine is linux on {here}");
        return Err(invalid(&why));
    }
    let digests = &configuration.rootfs.diff_ids;
    if digests.len() != layers.len() {
        return Err(invalid("its configuration is of other layers"));
    }
    for (path, digest) in layers.iter().zip(digests) {
        let mut content = Digesting {
            inner: Plain::of(layout.read(path)?)?,
            digest: Sha256::new(),
        };
        Laying::on(tree, Base::Layers, stop).lay(&mut content)?;
        check(&content.digest.finalize(), digest)?;
    }
    let env = configuration.config.unwrap_or_default().env;
    let pair = |text: String| {
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Ok(env
        .unwrap_or_default()
        .into_iter()
        .filter_map(pair)
        .collect())
}

fn find(layout: &Tree) -> io::Result<(Configuration, Vec<PathBuf>)> {
    let index = match text(layout, Path::new("index.json")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return saved(layout),
        index => parse::<Index>(&index?)?,
    };
    let mut found = Vec::new();
    manifests(layout, index, DEPTH, &mut found)?;
    let Some(manifest) = found.pop() else {
        let here = architecture_here();
        return Err(invalid(&format!("there is no image for {here} in it")));
    };
    if !found.is_empty() {
        return Err(invalid("there are several images in it: give one alone"));
    }
    let manifest: Manifest = parse(&blob(layout, &manifest.digest)?)?;
    let configuration = parse(&blob(layout, &manifest.config.digest)?)?;
    let paths = manifest.layers.iter().map(|layer| path(&layer.digest));
    Ok((configuration, paths.collect::<io::Result<_>>()?))
}

/// Gathers the manifests that may be meant for this machine.
fn manifests(
    layout: &Tree,
    index: Index,
    depth: usize,
    found: &mut Vec<Descriptor>,
) -> io::Result<()> {
    for descriptor in index.manifests {
        let fits = descriptor.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture_here()
        });
        let is_index = ["image.index", "manifest.list"]
            .iter()
            .any(|kind| descriptor.media_type.contains(kind));
        if !fits {
            continue;
        }
        if !is_index {
            found.push(descriptor);
        } else if depth > 0 {
            let index = parse(&blob(layout, &descriptor.digest)?)?;
            manifests(layout, index, depth - 1, found)?;
        }
    }
    Ok(())
}

fn saved(layout: &Tree) -> io::Result<(Configuration, Vec<PathBuf>)> {
    let manifest = match text(layout, Path::new("manifest.json")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "there is neither index.json nor manifest.json in it: it is no image";
            return Err(invalid(why));
        }
        manifest => manifest?,
    };
    let mut images: Vec<Saved> = parse(&manifest)?;
    match (images.pop(), images.is_empty()) {
        (Some(image), true) => Ok((parse(&text(layout, &image.config)?)?, image.layers)),
        (None, _) => Err(invalid("there is no image in it")),
        (Some(_), false) => Err(invalid("there are several images in it: give one alone")),
    }
}

/// A small blob, checked.
fn blob(layout: &Tree, digest: &str) -> io::Result<Vec<u8>> {
    let content = text(layout, &path(digest)?)?;
    check(&Sha256::digest(&content), digest)?;
    Ok(content)
}

fn path(digest: &str) -> io::Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid(&format!("{digest:?} is no digest that is known")));
    }
    Ok(Path::new("blobs/sha256").join(hex))
}

fn check(found: &[u8], wanted: &str) -> io::Result<()> {
    let found = format!("sha256:{}", HEXLOWER.encode(found));
    if found == wanted {
        return Ok(());
    }
    Err(invalid(&format!("it is damaged: {found} is not {wanted}")))
}

fn text(layout: &Tree, path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    layout.read(path)?.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|error| invalid(&error.to_string()))
}

/// In the words of container tools.
fn architecture_here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Digests what is read.
struct Digesting<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
