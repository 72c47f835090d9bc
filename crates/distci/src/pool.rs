//! `distci pool`: workers as many as are wanted.
//!
//! Owns what its file means on this machine: what a group's workers offer, and what they are told.

mod file;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distci_isolation::{Groups, Images, machine};
use distci_model::capability::{Capabilities, Capability, Kind};
use distci_model::isolation::Driver;
use distci_pool::{Group, Settings, Start};
use tokio_util::sync::CancellationToken;

use self::file::{File, How};
use crate::cli::Pool;
use crate::connection::{Connection, user_directory};
use crate::exit::Exit;
use crate::out::Out;
use crate::signals::Signals;
use crate::worker;

pub(crate) async fn run(connection: &Connection, arguments: Pool, out: &mut Out) -> Result<Exit> {
    if arguments.config_sample {
        out.bytes(file::SAMPLE.as_bytes())?;
        return Ok(Exit::Ok);
    }
    let path = arguments.file.context("there is no file")?;
    let file = File::load(&path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let beside = std::path::absolute(folder.unwrap_or(Path::new(".")))?;
    let settings = settings(connection, file, arguments.dir, beside)?;
    if arguments.check {
        distci_pool::check(&settings).await?;
        out.line(format_args!("every group can be started"))?;
        return Ok(Exit::Ok);
    }
    let client = connection.patient_client()?;
    let (frontends, groups) = (client.frontends().join(" "), settings.groups.len());
    tracing::info!(pool = %settings.name, groups, %frontends, "pool starts");
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()?;
    let pooling = distci_pool::run(settings, client, stop.clone());
    let mut pooling = std::pin::pin!(pooling);
    loop {
        tokio::select! {
            ended = &mut pooling => {
                ended?;
                return Ok(Exit::Ok);
            }
            () = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("leaving at once; what workers had claimed will be claimed again");
                    return Ok(Exit::Interrupted);
                }
                tracing::info!("stopping; workers finish what they do; interrupt again to leave at once");
                stop.cancel();
            }
        }
    }
}

fn settings(
    connection: &Connection,
    file: File,
    directory: Option<PathBuf>,
    beside: PathBuf,
) -> Result<Settings> {
    let (urls, token) = connection.found()?;
    let urls = file.url.clone().unwrap_or(urls);
    let mut told = vec![("DISTCI_URL".into(), urls.join(",").into())];
    told.extend(token.map(|token| ("DISTCI_TOKEN".into(), token.reveal().into())));
    let usual = user_directory("XDG_CACHE_HOME", ".cache");
    let usual = usual.map(|cache| cache.join("distci/pool").join(&file.name));
    let directory = directory.or(usual);
    let directory = directory.context("there is no home folder: give --dir")?;
    let images = file.images.as_ref().map(|images| beside.join(images));
    let images = worker::images(images)?;
    let own = |(name, _): &(std::ffi::OsString, _)| {
        let ours = [
            "DISTCI_URL",
            "DISTCI_TOKEN",
            "DISTCI_TOKEN_FILE",
            "DISTCI_DATA",
        ];
        !ours.iter().any(|ours| name == ours)
    };
    Ok(Settings {
        groups: file
            .groups
            .iter()
            .map(|group| in_full(group, &images))
            .collect(),
        name: file.name,
        program: std::env::current_exe().context("this program has no file")?,
        environment: std::env::vars_os().filter(own).collect(),
        connection: told,
        machine: machine::Settings {
            supervisor: worker::supervisor(),
            agent: worker::agent()?,
            groups: Groups::find(),
            scratch: directory.clone(),
            drivers: drivers(&file.groups),
            images,
            default_image: None,
        },
        directory,
        beside,
    })
}

/// The drivers that cells of the pool need: those that groups name, or all if one names none.
fn drivers(groups: &[file::Group]) -> Vec<Driver> {
    let mut drivers = Vec::new();
    for group in groups {
        if let How::Cell(isolation) = &group.how {
            match isolation.driver {
                Some(driver) => drivers.push(driver),
                None => return Vec::new(),
            }
        }
    }
    drivers.push(Driver::Process);
    drivers
}

/// A group with all that its workers offer.
fn in_full(group: &file::Group, images: &Path) -> Group {
    let kinds = if group.kinds.is_empty() {
        Kind::of_workers().collect()
    } else {
        group.kinds.clone()
    };
    let mut offers: Vec<Capability> = kinds.into_iter().map(Capability::Kind).collect();
    let labels = match &group.how {
        // Where a command starts its workers is its own matter, and so is what that machine is.
        How::Command(_) => group.labels.clone(),
        How::Machine { .. } | How::Cell(_) => worker::labels(group.labels.clone()),
    };
    offers.extend(labels.into_iter().map(Capability::Label));
    offers.extend(group.offers.iter().cloned());
    let start = match &group.how {
        How::Command(argv) => Start::Command(argv.clone()),
        How::Cell(isolation) => {
            offers.push(Capability::Driver(Driver::Process));
            Start::Cell(isolation.clone())
        }
        How::Machine { drivers } => {
            offers.extend(drivers.iter().copied().map(Capability::Driver));
            if drivers.iter().any(|driver| driver.has_images()) {
                let names = Images::at(images.to_owned()).names();
                offers.extend(names.into_iter().map(Capability::Image));
            }
            let each = drivers
                .iter()
                .flat_map(|driver| ["--driver".to_owned(), driver.to_string()]);
            let mut arguments: Vec<_> = each.map(Into::into).collect();
            arguments.extend(["--images".into(), images.into()]);
            Start::Machine(arguments)
        }
    };
    Group {
        name: group.name.clone(),
        min: group.min,
        max: group.max,
        kinds: group.kinds.clone(),
        labels: group.labels.clone(),
        offers: offers.into_iter().collect::<Capabilities>(),
        idle: group.idle,
        boot: group.boot,
        start,
    }
}
