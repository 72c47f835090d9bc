//! The pages, as people see them: a real browser over the real program. Every step waits for what it
//! needs to see, never for a time; and every test fails if the browser complains of a page.

mod access;
mod artifacts;
mod browser;
mod console;
mod pages;
#[path = "../common/place.rs"]
mod place;
#[path = "../common/program.rs"]
mod program;
mod site;
mod takeover;
