//! What the root of a cell may not do where it is the machine's root too, and how a driver says that
//! it does not work.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use distci_isolation::{Ended, Error, Image};

use crate::scene::{Scene, Subject};

/// Nothing of the machine's kernel or devices is changed, and no other device is reached.
pub(crate) async fn none_over_the_machine(subject: &Subject) {
    let setting = "/proc/sys/kernel/core_pattern";
    let before = fs::read(setting).unwrap();
    let script = format!(
        "chmod 600 /dev/null; (echo x > {setting}) 2>/dev/null && echo sets; \
         (mount -o remount,rw /proc/sys && echo x > {setting}) 2>/dev/null && echo remounts; \
         umount /proc/sys 2>/dev/null && echo unmounts; \
         mknod disk b 254 0 2>/dev/null && head -c 1 disk 2>/dev/null && echo reads the disk; \
         test -e /dev/vda && echo sees the disk; test -e /dev/kmsg && echo sees the log; \
         touch /root/a && chmod 0 /root && rm /root/a && echo is root"
    );
    let (finished, text) = Scene::run(subject, &subject.terms(), &script).await;
    assert_eq!(
        (finished.ended, text.as_str()),
        (Ended::Exit(0), "is root\n")
    );
    assert_eq!(fs::read(setting).unwrap(), before);
    assert_eq!(fs::metadata("/dev/null").unwrap().mode() & 0o777, 0o666);
}

/// The environment may hold secrets: the command lines of the machine's processes do not.
pub(crate) async fn none_to_read_the_environment(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let mut command = crate::scene::command(cell.as_ref(), &["sleep", "1"]);
    command.env.push(("TOKEN".into(), "kept-to-itself".into()));
    let lines = async {
        let mut seen = Vec::new();
        for _ in 0..40 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                if line.contains("kept-to-itself") {
                    seen.push(line);
                }
            }
        }
        seen
    };
    let mut printed = crate::scene::Printed::default();
    let run = cell.run(&command, &mut printed, crate::scene::never());
    let (finished, seen) = tokio::join!(run, lines);
    assert_eq!(finished.unwrap().ended, Ended::Exit(0));
    assert!(seen.is_empty(), "{seen:?}");
    cell.close().await.unwrap();
}

/// An image in which nothing can run.
pub(crate) fn empty_image(folder: &Path) -> Image {
    let image = folder.join("empty");
    fs::create_dir_all(image.join("root")).unwrap();
    Image::in_folder(&image).unwrap()
}

/// It says what is missing and does not blame the script.
pub(crate) fn assert_says(tried: &Result<(), Error>, words: &str) {
    let said = tried.as_ref().unwrap_err().to_string();
    assert!(said.contains(words), "{said}");
}
