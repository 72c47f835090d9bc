//! `distci image build|ls|show|kernel|rm`: the images of this machine.
//!
//! Owns how a build is told to whoever waits for it. How images are made and kept is the matter of
//! `distci-isolation`; no server is asked.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use distci_isolation::machine::kernel_of;
use distci_isolation::{BuildError, Builder, Image, Images, Progress, Removed, prepare_kernel};
use distci_model::config::MAX_BYTES;
use distci_model::image::{Debian, ImageDescription, ImageSource};
use distci_model::isolation::ImageName;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::{self, ImageBuild, ImageRead};
use crate::clock::now;
use crate::diagnosis::{count, diagnosis};
use crate::exit::{Ended, Exit};
use crate::out::Out;
use crate::signals::Signals;
use crate::table::Table;
use crate::view;
use crate::worker::{self, supervisor};

pub(crate) async fn run(deed: cli::Image, out: &mut Out) -> Result<Exit> {
    match deed {
        cli::Image::Build(arguments) => build(*arguments, out).await,
        cli::Image::Ls(read) => list(read, out),
        cli::Image::Show { name, read } => show(&name, read, out),
        cli::Image::Kernel(read) => kernel(read, out).await,
        cli::Image::Rm { names, read } => remove(&names, read, out),
    }
}

async fn build(arguments: ImageBuild, out: &mut Out) -> Result<Exit> {
    let description = described(&arguments, out)?;
    let name = arguments.name.or_else(|| description.name.clone());
    let name =
        name.ok_or_else(|| Ended::failed("the image has no name: give it one with --name"))?;
    let stop = CancellationToken::new();
    let builder = Builder {
        images: images(arguments.read.images)?,
        supervisor: supervisor(),
        now: now(),
        stop: stop.clone(),
    };
    let mut signals = Signals::listen()?;
    let mut stages = Stages::begin(out)?;
    let tell = &mut |progress: Progress<'_>| stages.tell(progress);
    let built = {
        let mut building = std::pin::pin!(builder.build(&name, &description, tell));
        loop {
            tokio::select! {
                built = &mut building => break built,
                () = signals.next() => stop.cancel(),
            }
        }
    };
    stages.end();
    let built = match built {
        Err(BuildError::Stopped) => return Ok(Exit::Interrupted),
        built => built.map_err(|error| explained(&error))?,
    };
    let listed = built.listed()?;
    if arguments.read.json {
        out.json(&listed)?;
    } else {
        let size = view::size(listed.bytes);
        out.line(format_args!("{name}  {size}  {}", listed.id))?;
    }
    Ok(Exit::Ok)
}

async fn kernel(read: ImageRead, out: &mut Out) -> Result<Exit> {
    let folder = kernel_of(&worker::images(read.images)?);
    let made = folder.clone();
    tokio::task::spawn_blocking(move || prepare_kernel(&made)).await??;
    if read.json {
        out.json(&json!({ "kernel": folder }))?;
    } else {
        out.line(format_args!("{}", folder.display()))?;
    }
    Ok(Exit::Ok)
}

fn list(read: ImageRead, out: &mut Out) -> Result<Exit> {
    let images = images(read.images)?.list()?;
    if read.json {
        out.json(&images)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "SIZE", "BUILT", "CELLS", "FORMS", "FROM"]);
    for image in images {
        table.row([
            image.name.into(),
            view::size(image.bytes).into(),
            image
                .built
                .map(|built| view::age(built, now()))
                .unwrap_or_default()
                .into(),
            image.cells.into(),
            image.forms.join(" ").into(),
            image.source.into(),
        ]);
    }
    view::print(
        &table,
        "there are no images: see `distci image build --help`",
        out,
    )?;
    Ok(Exit::Ok)
}

fn show(name: &ImageName, read: ImageRead, out: &mut Out) -> Result<Exit> {
    let image = existing(&images(read.images)?, name)?.listed()?;
    if read.json {
        out.json(&image)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::bare();
    let built = image.built.map(|built| built.to_string());
    for (what, value) in [
        ("name", image.name.to_string()),
        ("id", image.id),
        ("from", image.source),
        ("built", built.unwrap_or_default()),
        ("size", view::size(image.bytes)),
        ("cells", image.cells.to_string()),
        ("forms", image.forms.join(" ")),
        ("root", image.root.display().to_string()),
    ] {
        table.row([what.into(), value.into()]);
    }
    for (name, value) in image.env {
        table.row(["env".into(), format!("{name}={value}").into()]);
    }
    for line in table.lines(out.data_paint()) {
        out.line(line)?;
    }
    Ok(Exit::Ok)
}

fn remove(names: &[ImageName], read: ImageRead, out: &mut Out) -> Result<Exit> {
    let images = images(read.images)?;
    let mut removed = Vec::new();
    for name in names {
        drop(existing(&images, name)?);
        let cells = match images.remove(name)? {
            Removed::Gone => 0,
            Removed::Later(cells) => cells,
        };
        removed.push(json!({ "name": name, "cells": cells }));
        match cells {
            _ if read.json => {}
            0 => out.say(format_args!("removed {name}"))?,
            cells => out.say(format_args!(
                "removed {name}, which {cells} still use: its files go with the next build or \
                 removal after them",
                cells = count_cells(cells)
            ))?,
        }
    }
    if read.json {
        out.json(&removed)?;
    }
    Ok(Exit::Ok)
}

fn count_cells(cells: usize) -> String {
    match cells {
        1 => "1 cell".to_owned(),
        many => format!("{many} cells"),
    }
}

fn images(given: Option<PathBuf>) -> Result<Images> {
    Ok(Images::at(worker::images(given)?))
}

fn existing(images: &Images, name: &ImageName) -> Result<Image> {
    images.get(name).map_err(|_| {
        let folder = images.folder().display();
        Ended::not_found(format!("there is no image {name} in {folder}"))
    })
}

/// The description in the file or in the options. Its paths are those of the file's folder.
fn described(arguments: &ImageBuild, out: &mut Out) -> Result<ImageDescription> {
    if let Some(file) = &arguments.file {
        let mut description = read(file, out)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        match &mut description.from {
            ImageSource::Tar(path) | ImageSource::Oci(path) => {
                *path = text(&folder.join(&*path))?;
            }
            ImageSource::Debian(_) | ImageSource::Busybox(_) => {}
        }
        return Ok(description);
    }
    let description = ImageDescription {
        name: None,
        from: source(arguments)?,
        run: arguments.run.clone(),
        env: arguments.env.iter().cloned().collect(),
    };
    match description.problems().first() {
        Some((_, problem)) => Err(Ended::failed(problem)),
        None => Ok(description),
    }
}

fn source(arguments: &ImageBuild) -> Result<ImageSource> {
    Ok(match (&arguments.debian, &arguments.tar, &arguments.oci) {
        (Some(suite), _, _) => ImageSource::Debian(Debian {
            suite: suite.clone(),
            packages: arguments.packages.clone(),
            mirror: arguments.mirror.clone(),
        }),
        (_, Some(path), _) => ImageSource::Tar(text(path)?),
        (_, _, Some(path)) => ImageSource::Oci(text(path)?),
        (None, None, None) => ImageSource::Busybox(true),
    })
}

fn text(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)?.into_os_string();
    let text = path.into_string();
    text.map_err(|path| Ended::failed(format!("{} is not UTF-8", path.display())))
}

fn read(path: &Path, out: &mut Out) -> Result<ImageDescription> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let read = file.take(MAX_BYTES as u64).read_to_string(&mut text);
    read.with_context(|| path.display().to_string())?;
    ImageDescription::parse(&text).or_else(|problems| {
        let paint = out.talk_paint();
        out.say(diagnosis(&problems, paint, |_| (path.to_owned(), &text)))?;
        let count = count(&problems);
        Err(Ended::failed(format!("{} {count}", path.display())))
    })
}

/// What the caller can mend is a failure.
fn explained(error: &BuildError) -> anyhow::Error {
    let message = error.to_string();
    match error {
        BuildError::Source { .. } | BuildError::Tool { .. } | BuildError::Command { .. } => {
            Ended::failed(message)
        }
        BuildError::NotRoot
        | BuildError::DiskFull(_)
        | BuildError::Stopped
        | BuildError::Isolation(_) => Ended::unusable(message),
    }
}

/// The stages of a build: on a terminal the one that goes on and the last words of its tool, and
/// everywhere how long each took.
struct Stages<'a> {
    out: &'a mut Out,
    bar: ProgressBar,
    current: Option<(String, Instant)>,
}

impl<'a> Stages<'a> {
    fn begin(out: &'a mut Out) -> Result<Self> {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")?;
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            ProgressBar::hidden()
        };
        Ok(Self {
            out,
            bar,
            current: None,
        })
    }

    fn tell(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Stage(stage) => {
                self.finish();
                self.bar.set_prefix(view::plain(stage));
                self.bar.set_message("");
                self.bar.reset_elapsed();
                self.current = Some((stage.to_owned(), Instant::now()));
            }
            Progress::Output(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
                    self.bar.set_message(view::plain(line));
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some((stage, begun)) = self.current.take() {
            let line = format!(
                "{:6.1} s  {}",
                begun.elapsed().as_secs_f32(),
                view::plain(&stage)
            );
            // Who does not read it still wants the image.
            self.bar.suspend(|| drop(self.out.say(line)));
        }
    }

    fn end(mut self) {
        self.finish();
        self.bar.finish_and_clear();
    }
}
