//! The file system that a kernel begins with: a cpio of the "newc" kind, uncompressed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

const DOING: &str = "making the initial file system of virtual machines";
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;
/// The device by which the kernel gives its first process somewhere to complain, and `null`.
const DEVICES: [(&str, (u32, u32)); 2] = [("dev/console", (5, 1)), ("dev/null", (1, 3))];

/// Writes one in which `program` is `/init`, with the libraries that it needs and `modules`.
pub(super) fn write(to: &Path, program: &Path, modules: &[PathBuf]) -> Result<(), Error> {
    let mut archive = Cpio {
        to: BufWriter::new(File::create(to)?),
        entries: 0,
        folders: Vec::new(),
    };
    archive.add("init", PROGRAM, (0, 0), &slim(program, to)?)?;
    for library in libraries(program)? {
        let name = library.display().to_string();
        archive.add(
            name.trim_start_matches('/'),
            PROGRAM,
            (0, 0),
            &fs::read(&library)?,
        )?;
    }
    for module in modules {
        let name = module.file_name().unwrap_or_default().display();
        archive.add(
            &format!("modules/{name}"),
            PROGRAM,
            (0, 0),
            &fs::read(module)?,
        )?;
    }
    for (name, numbers) in DEVICES {
        archive.add(name, DEVICE, numbers, &[])?;
    }
    archive.finish()?;
    Ok(())
}

/// The program without what only debuggers read, if there is a tool for that: it has to be carried
/// into every machine.
fn slim(program: &Path, beside: &Path) -> io::Result<Vec<u8>> {
    let slim = beside.with_extension("slim");
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&slim)
        .arg(program)
        .output();
    if stripped.is_ok_and(|done| done.status.success()) {
        let bytes = fs::read(&slim);
        fs::remove_file(slim)?;
        return bytes;
    }
    fs::read(program)
}

/// Those that the loader would take here, and the loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let done = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    if said.contains("not found") {
        return Err(Error::driver(DOING, &said.trim()));
    }
    if !done.status.success() && !errors.contains("not a dynamic executable") {
        return Err(Error::driver(DOING, &format!("ldd: {}", errors.trim())));
    }
    let paths = said.lines().filter_map(|line| {
        let (library, _) = line.rsplit_once(" (")?;
        let path = library.rsplit(" => ").next()?.trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

struct Cpio<W> {
    to: W,
    entries: u32,
    /// Those that are in it.
    folders: Vec<String>,
}

impl<W: Write> Cpio<W> {
    /// Adds a file, after the folders that it is in.
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            let folder = name[..end].to_owned();
            if !self.folders.contains(&folder) {
                self.entry(&folder, FOLDER, (0, 0), &[])?;
                self.folders.push(folder);
            }
        }
        self.entry(name, mode, device, content)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let named = u32::try_from(name.len() + 1).map_err(too_large)?;
        // Number, mode, owner, group, links, time, size, device, its own device, name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            named,
            0,
        ];
        let mut head = b"070701".to_vec();
        for field in fields {
            head.extend(format!("{field:08x}").bytes());
        }
        head.extend(name.bytes());
        head.push(0);
        for part in [&head, content] {
            self.to.write_all(part)?;
            let rest = part.len().next_multiple_of(4) - part.len();
            self.to.write_all(&[0; 4][..rest])?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }
}
