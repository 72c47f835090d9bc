//! The way to the objects, and a proof that it is open.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where the parts of an access are kept in a cluster's folder, one a line.
const FILE: &str = "s3";

/// What a client needs to reach the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Access {
    /// The URLs of the gateways; each serves the same objects.
    pub endpoints: Vec<String>,
    /// A bucket that is there.
    pub bucket: String,
    /// The region to sign for.
    pub region: String,
    /// The user.
    pub access_key: String,
    /// The user's key, good for this cluster alone.
    pub secret_key: String,
}

impl S3Access {
    pub(super) fn on(address: Ipv4Addr, ports: &[u16]) -> Self {
        Self {
            endpoints: ports
                .iter()
                .map(|port| format!("http://{address}:{port}"))
                .collect(),
            bucket: "distci".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: "distci".to_owned(),
            secret_key: "distci-secret".to_owned(),
        }
    }

    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let Self {
            endpoints,
            bucket,
            region,
            access_key,
            secret_key,
        } = self;
        let endpoints = endpoints.join(" ");
        let lines = [&endpoints, bucket, region, access_key, secret_key].map(String::as_str);
        fs::write(dir.join(FILE), lines.join("\n")).context(FILE)
    }

    pub(super) fn load(dir: &Path) -> Result<Self> {
        let text = fs::read_to_string(dir.join(FILE))?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let Ok([endpoints, bucket, region, access_key, secret_key]) = <[_; 5]>::try_from(lines)
        else {
            bail!("{FILE} was cut short");
        };
        let endpoints = endpoints.split_whitespace().map(str::to_owned).collect();
        Ok(Self {
            endpoints,
            bucket,
            region,
            access_key,
            secret_key,
        })
    }

    pub(super) fn create_bucket(&self) -> Result<()> {
        let first = self.endpoints.first().context("no gateway")?;
        crate::patience::wait_for("the first gateway", crate::patience::LONG, || {
            Ok(answers(first).then_some(()))
        })?;
        self.curl(&["-X", "PUT"], &format!("{first}/{}", self.bucket))
            .map(drop)
    }

    /// Puts an object in through a gateway, and compares what comes out.
    pub(super) fn round_trip(&self, endpoint: &str, probe: &Path) -> Result<()> {
        let name = probe.file_name().unwrap_or_default().to_string_lossy();
        let url = format!("{endpoint}/{}/distci-{name}", self.bucket);
        let content = super::config::uuid()?;
        fs::write(probe, &content)?;
        self.curl(&["-T", &probe.display().to_string()], &url)?;
        let came = self.curl(&[], &url)?;
        self.curl(&["-X", "DELETE"], &url)?;
        fs::remove_file(probe)?;
        if came != content {
            bail!("{endpoint} gave `{came}` for `{content}`");
        }
        Ok(())
    }

    /// Sends one signed request, and returns the body of the answer.
    fn curl(&self, arguments: &[&str], url: &str) -> Result<String> {
        let output = Command::new("curl")
            .args(["-sS", "--fail-with-body", "--max-time", "60"])
            .args(["--aws-sigv4", &format!("aws:amz:{}:s3", self.region)])
            .args([
                "--user",
                &format!("{}:{}", self.access_key, self.secret_key),
            ])
            // The gateway wants the header, which curl itself sends only in newer versions.
            .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(arguments)
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .context("curl")?;
        let body = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{url}: {}: {said}{body}", output.status);
        }
        Ok(body)
    }
}

/// Whether a gateway answers at all.
pub(super) fn answers(endpoint: &str) -> bool {
    let asked = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "--max-time", "5", endpoint])
        .stdin(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}
