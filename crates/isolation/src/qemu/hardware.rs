//! A virtual machine as QEMU makes it: the command line, and the process for as long as somebody
//! talks to the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::disks::Disk;
use super::line::{Line, SOCKET};
use super::wire::PORT;
use crate::cell::{Ended, Finished, Output};
use crate::error::Error;
use crate::group::Group;
use crate::launch::Launch;
use crate::view::View;

/// The program.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// Most that is kept of what QEMU and the kernel said: the end says why.
const TAIL: usize = 4096;
/// Nothing of QEMU's own may make processes, change its user, or reach further than it does.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Who computes what the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// A program, some ten times slower.
    Tcg,
}

/// A machine to be booted.
#[derive(Debug)]
pub(super) struct Hardware<'a> {
    /// See [`Launch`].
    pub(super) supervisor: &'a [OsString],
    /// See [`Launch`].
    pub(super) key: &'a OsString,
    pub(super) group: Option<&'a Group>,
    /// Where it runs.
    pub(super) folder: &'a Path,
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    /// The word that makes the first process an agent.
    pub(super) word: String,
    pub(super) accelerator: Accelerator,
    /// In bytes.
    pub(super) memory: u64,
    pub(super) processors: u32,
    pub(super) disks: Vec<Disk>,
    pub(super) network: bool,
}

/// What became of a machine.
pub(super) struct Over<T> {
    /// What came of the conversation.
    pub(super) talk: T,
    /// How QEMU ended.
    pub(super) machine: Result<Finished, Error>,
    /// The last that it and the kernel said.
    pub(super) tail: String,
}

impl Hardware<'_> {
    /// Runs it as long as `talk` goes on over `line`.
    ///
    /// # Cancel safety
    /// Dropped, it switches the machine off, though not before it returns.
    pub(super) async fn run<T>(
        &self,
        line: &Line,
        talk: impl Future<Output = T> + Send,
    ) -> Over<T> {
        let launch = Launch {
            supervisor: self.supervisor,
            key: self.key,
            argv: self.argv(),
            directory: self.folder.to_owned(),
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            group: self.group,
            others: None,
            container: false,
            view: View::default(),
            stage: None,
            files: Vec::new(),
        };
        let (over, mut tail) = (CancellationToken::new(), Tail::default());
        let off = Box::pin(async {
            over.cancelled().await;
            Duration::ZERO
        });
        let machine = async {
            let finished = launch.run(&mut tail, off).await;
            line.gone.cancel();
            finished
        };
        let talk = async {
            let said = talk.await;
            over.cancel();
            said
        };
        let (machine, talk) = tokio::join!(machine, talk);
        Over {
            talk,
            machine,
            tail: tail.text(),
        }
    }

    fn argv(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![PROGRAM.into()];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(OsString::from));
        let (accelerator, processor) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "max"),
            // `max` boots three times slower. With a thread for each processor, one boot in some
            // hundred hangs where the kernel rewrites its own code, or ends the emulator by an
            // assertion of its own.
            Accelerator::Tcg => ("tcg,thread=single", "qemu64"),
        };
        add(&["-accel", accelerator, "-cpu", processor, "-M", "q35"]);
        add(&["-smp", &self.processors.to_string()]);
        add(&["-m", &format!("{}M", self.memory.div_ceil(1 << 20))]);
        add(&["-display", "none", "-monitor", "none", "-nodefaults"]);
        add(&["-no-user-config", "-no-reboot", "-sandbox", SANDBOX]);
        // A pipe, read by us: nobody inside fills a disk of ours with it.
        add(&["-chardev", "file,id=console,path=/dev/stdout"]);
        add(&["-serial", "chardev:console", "-append", &self.append()]);
        add(&["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        add(&["-chardev", &format!("socket,id=port,path={SOCKET}")]);
        add(&[
            "-device",
            &format!("virtserialport,chardev=port,name={PORT}"),
        ]);
        if self.network {
            add(&["-netdev", "user,id=net,ipv6=off"]);
            add(&["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        for disk in &self.disks {
            let name = disk.name;
            let mut drive = OsString::from(format!("if=none,id={name},format=raw,"));
            drive.push(if disk.writable {
                // Nobody wants it after a crash. A disk of ours that is full is an error there.
                "cache=unsafe,werror=report,rerror=report,file="
            } else {
                "readonly=on,file.locking=off,file="
            });
            drive.push(disk.path.to_string_lossy().replace(',', ",,"));
            argv.extend(["-drive".into(), drive, "-device".into()]);
            argv.push(format!("virtio-blk-pci,drive={name},serial={name}").into());
        }
        argv.extend(["-kernel".into(), self.kernel.clone().into()]);
        argv.extend(["-initrd".into(), self.initrd.clone().into()]);
        argv
    }

    /// What the kernel is told. An emulated clock is not steady enough to measure others by it, and
    /// a busy machine makes that worse, so the kernel gets to know what it would measure.
    fn append(&self) -> String {
        let mut words = vec!["console=ttyS0 quiet loglevel=4 panic=-1 reboot=t".to_owned()];
        if self.accelerator == Accelerator::Tcg {
            words.push("nokaslr mitigations=off tsc=reliable no_timer_check".to_owned());
            let known = kilohertz().map(|khz| format!("tsc_early_khz={khz} lpj={}", khz * 2));
            words.extend(known);
        }
        words.push(format!("rdinit=/init -- {}", self.word));
        words.join(" ")
    }
}

/// How fast the clock of the processor counts.
fn kilohertz() -> Option<u64> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = processors
        .lines()
        .find(|line| line.starts_with("cpu MHz"))?;
    let (whole, rest) = line.split_once(':')?.1.trim().split_once('.')?;
    let thousandths = rest.get(..3)?.parse::<u64>().ok()?;
    Some(whole.parse::<u64>().ok()? * 1000 + thousandths)
}

/// The last of what was said.
#[derive(Default)]
struct Tail(Vec<u8>);

#[async_trait]
impl Output for Tail {
    async fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(TAIL);
        self.0.drain(..surplus);
    }
}

impl Tail {
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        // Firmware moves the cursor about.
        let plain = |c: &char| *c == '\n' || !c.is_control();
        text.trim().chars().filter(plain).collect()
    }
}

/// Whether the machine ended as guests end it: by themselves.
pub(super) fn by_itself(machine: &Result<Finished, Error>) -> bool {
    matches!(machine, Ok(finished) if finished.ended == Ended::Exit(0))
}
