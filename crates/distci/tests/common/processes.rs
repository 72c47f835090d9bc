//! Who is still there.

use anyhow::Result;

/// Processes whose environment mentions `text`.
pub(crate) fn processes_with(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let dir = entry?.path();
        // It may end while we look.
        let environment = std::fs::read(dir.join("environ")).unwrap_or_default();
        if environment
            .windows(text.len().max(1))
            .any(|window| window == text.as_bytes())
        {
            let command = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    Ok(found)
}
