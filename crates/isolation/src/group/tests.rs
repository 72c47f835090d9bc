use super::*;

/// A group of plain folders, as the new form would have it.
fn group(folder: &Path, unified: bool) -> Group {
    use Controller::{Cpu, CpuAccounting, Memory, Pids};
    Group {
        folders: vec![Folder {
            controllers: vec![Memory, Pids, Cpu, CpuAccounting],
            unified,
            path: folder.join("cell"),
            home: folder.to_owned(),
        }],
    }
}

fn terms() -> Terms {
    Terms {
        memory: Size::from_bytes(64 << 20),
        cpus: Cpus::from_thousandths(1500),
        processes: Some(30),
        ..Terms::default()
    }
}

fn read(group: &Group, file: &str) -> String {
    fs::read_to_string(group.folders[0].path.join(file)).unwrap()
}

#[test]
fn limits_are_written_in_the_new_form() {
    let folder = tempfile::tempdir().unwrap();
    let group = group(folder.path(), true);
    group.make(&terms()).unwrap();
    assert_eq!(read(&group, "memory.max"), "67108864");
    assert_eq!(read(&group, "cpu.max"), "150000 100000");
    assert_eq!(read(&group, "pids.max"), "30");
}

#[test]
fn limits_are_written_in_the_old_form() {
    let folder = tempfile::tempdir().unwrap();
    let group = group(folder.path(), false);
    group.make(&terms()).unwrap();
    assert_eq!(read(&group, "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&group, "cpu.cfs_quota_us"), "150000");
}

#[test]
fn what_is_counted_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let group = group(folder.path(), true);
    group.make(&Terms::default()).unwrap();
    assert_eq!(group.excess(), Excess::default());
    let write = |file: &str, text: &str| fs::write(group.folders[0].path.join(file), text).unwrap();
    write("memory.events", "oom 3\noom_kill 1\n");
    write("pids.events", "max 0\n");
    write("memory.peak", "123\n");
    write("cpu.stat", "usage_usec 4567\nuser_usec 1\n");
    assert!(group.excess().memory && !group.excess().processes);
    assert_eq!(group.memory_peak(), Some(123));
    assert_eq!(group.cpu_ms(), Some(4));
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused() {
    let refused = Groups::none().plan("cell", &terms()).unwrap_err();
    assert!(
        refused.to_string().contains("cannot be limited"),
        "{refused}"
    );
    assert!(
        Groups::none()
            .plan("cell", &Terms::default())
            .unwrap()
            .is_none()
    );
    let empty = Group {
        folders: Vec::new(),
    };
    assert!(matches!(empty.make(&terms()), Err(Error::Unsupported(_))));
}

/// On the machine itself, which must let us make groups: the tests want to be root.
#[test]
fn a_real_group_limits_kills_and_goes() {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    let group = groups.plan(&format!("test-{}", std::process::id()), &terms());
    let group = group.unwrap().unwrap();
    group.make(&terms()).unwrap();
    let mut sleeper = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    for folder in &group.folders {
        fs::write(folder.path.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    }
    group.end().unwrap();
    assert!(!sleeper.wait().unwrap().success());
    assert!(group.folders.iter().all(|folder| !folder.path.exists()));
    group.end().unwrap();
}
