//! A browser, and how it is driven.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use thirtyfour::prelude::*;
use thirtyfour::{ChromeCapabilities, LoggingPrefsLogLevel};

/// How long anything on a page may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// The reader's taste.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl Theme {
    pub(crate) const ALL: [Self; 2] = [Self::Light, Self::Dark];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A browser with one empty window. Dropped, it is gone with all its processes.
pub(crate) struct Browser {
    pub(crate) window: WebDriver,
    driver: Driver,
}

/// The process that drives it, the leader of a group with the browser in it.
struct Driver {
    child: Child,
    _profile: TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended already; then there is nothing to kill.
            killpg(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
        drop(self.child.wait());
    }
}

impl Browser {
    /// Opens one.
    pub(crate) async fn open() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut child = Command::new("chromedriver")
            .args(["--port=0", "--log-level=WARNING"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("chromedriver; `cargo xtask setup` installs it")?;
        let said = child.stdout.take().context("no output")?;
        let data = profile.path().display().to_string();
        let driver = Driver {
            child,
            _profile: profile,
        };
        let port = BufReader::new(said)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split("started successfully on port ").nth(1)?;
                port.trim_end_matches('.').parse::<u16>().ok()
            });
        let port = port.context("chromedriver did not start")?;
        let mut wanted = ChromeCapabilities::new();
        for argument in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1280,900",
        ] {
            wanted.add_arg(argument)?;
        }
        wanted.add_arg(&format!("--user-data-dir={data}"))?;
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        let window = WebDriver::new(format!("http://127.0.0.1:{port}"), wanted).await?;
        Ok(Self { window, driver })
    }

    /// Shows an address.
    pub(crate) async fn visit(&self, address: &str) -> Result<()> {
        self.window.goto(address).await.context(address.to_owned())
    }

    /// Signs in on the way to an address.
    pub(crate) async fn sign_in(&self, address: &str, token: &str) -> Result<()> {
        self.visit(address).await?;
        self.enter(token).await
    }

    /// Signs in where one is asked to.
    pub(crate) async fn enter(&self, token: &str) -> Result<()> {
        let field = self.find("input[name=token]").await?;
        field.send_keys(token).await?;
        self.find("main form button").await?.click().await?;
        self.find(".top nav").await?;
        Ok(())
    }

    /// The element, as soon as it is there.
    pub(crate) async fn find(&self, css: &str) -> Result<WebElement> {
        let query = self.window.query(By::Css(css)).wait(PATIENCE, LOOK);
        query.first().await.with_context(|| css.to_owned())
    }

    /// Waits until an element shows this.
    pub(crate) async fn see(&self, css: &str, text: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let shown = match self.window.find(By::Css(css)).await {
                Ok(element) => element.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if shown.contains(text) {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "waited in vain for {text:?} in {css}, which shows {shown:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Shows everything as somebody of that taste sees it.
    pub(crate) async fn prefer(&self, theme: Theme) -> Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": theme.as_str() });
        let media = json!({ "features": [feature] });
        let tools = self.window.cdp();
        tools.send_raw("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Makes the window this wide, as a page sees it.
    pub(crate) async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let tools = self.window.cdp();
        tools
            .send_raw("Emulation.setDeviceMetricsOverride", size)
            .await?;
        Ok(())
    }

    /// Keeps a picture of what is shown, if somebody wants pictures.
    pub(crate) async fn keep(&self, name: &str, theme: Theme) -> Result<()> {
        let Some(folder) = std::env::var_os("DISTCI_PICTURES") else {
            return Ok(());
        };
        std::fs::create_dir_all(&folder)?;
        let file = Path::new(&folder).join(format!("{name}-{}.png", theme.as_str()));
        std::fs::write(file, self.window.screenshot_as_png().await?)?;
        Ok(())
    }

    /// Whether nothing is cut off to the right.
    pub(crate) async fn fits(&self) -> Result<()> {
        let script = "return [document.documentElement.scrollWidth, innerWidth, \
            [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 \
            && !e.closest('[data-scrolls]')).slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(' | ')]";
        let widths = self.window.execute(script, Vec::new()).await?;
        let (wide, window, which): (u64, u64, String) = widths.convert()?;
        ensure!(
            wide <= window,
            "the page is {wide} wide in a window of {window}: {which}"
        );
        Ok(())
    }

    /// Closes it. What it complained of (a script that threw, something that the page's policy
    /// forbids, a link to nowhere) is an error.
    pub(crate) async fn close(self) -> Result<()> {
        let complaints = self.complaints().await?;
        self.leave().await?;
        ensure!(
            complaints.is_empty(),
            "the browser complains: {complaints:#?}"
        );
        Ok(())
    }

    /// Closes it, whatever it complained of.
    pub(crate) async fn leave(self) -> Result<()> {
        let Self { window, driver } = self;
        window.quit().await?;
        drop(driver);
        Ok(())
    }

    async fn complaints(&self) -> Result<Vec<String>> {
        let said = self.window.handle().browser_log().await?.into_iter();
        let severe = said.filter(|entry| entry.level == "SEVERE");
        Ok(severe.map(|entry| entry.message).collect())
    }
}
