//! `distci schema`: the JSON Schema of job files, for editors.

use anyhow::Result;
use distci_model::config::JobConfig;

use crate::exit::Exit;
use crate::out::Out;

pub(crate) fn run(out: &mut Out) -> Result<Exit> {
    out.json(&JobConfig::json_schema())?;
    Ok(Exit::Ok)
}
