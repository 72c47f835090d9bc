//! The private key of an app.
//!
//! Owns the reading of the PEM file that GitHub hands out, and what is said of one that holds
//! something else. Never shows a byte of it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use data_encoding::BASE64;

/// A private RSA key. Never shown.
#[derive(Clone)]
pub struct AppKey(Arc<KeyPair>);

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(…)")
    }
}

/// A text that is no private key of an app, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No line begins a block of PEM.
    #[error(
        "there is no line -----BEGIN RSA PRIVATE KEY-----: give the .pem file as GitHub hands it out"
    )]
    NoPem,
    /// The first block is something else.
    #[error("line {line}: it holds {what}, and no private RSA key: {advice}")]
    Other {
        /// Where, from 1.
        line: usize,
        /// The block's name.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Its end is missing.
    #[error("line {line}: what begins here has no -----END-----: the file was cut off")]
    CutOff {
        /// Where it begins, from 1.
        line: usize,
    },
    /// A line holds other characters.
    #[error("line {line}: this is no base64: the file was changed on its way here")]
    NoBase64 {
        /// Which, from 1; the first, if it is not to be told.
        line: usize,
    },
    /// The block is in order, what it holds is not.
    #[error(
        "line {line}: what follows is no RSA key of 2048 to 8192 bits: generate another at GitHub"
    )]
    NoKey {
        /// Where it begins, from 1.
        line: usize,
    },
}

impl AppKey {
    /// The key in a PEM file, in the form of PKCS#1 (GitHub's) or PKCS#8.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let (line, name, block) = block(text)?;
        let parse = match name {
            "RSA PRIVATE KEY" => KeyPair::from_der,
            "PRIVATE KEY" => KeyPair::from_pkcs8,
            _ => return Err(other(line, name)),
        };
        let key = parse(&decoded(line, &block)?);
        let key = key.map_err(|_| InvalidKey::NoKey { line })?;
        Ok(Self(Arc::new(key)))
    }

    /// The signature of a message: PKCS#1 v1.5 with SHA-256. `None` if the library cannot.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        let signed = self
            .0
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
        signed.ok().map(|()| signature)
    }
}

/// The first block: its first line, its name, and the lines within.
fn block(text: &str) -> Result<(usize, &str, Vec<&str>), InvalidKey> {
    let mut lines = text.lines().map(str::trim).enumerate();
    let begins = |line: &str| -> Option<usize> { line.starts_with("-----BEGIN ").then_some(11) };
    let named = lines.find_map(|(at, line)| {
        let name = line.get(begins(line)?..)?.strip_suffix("-----")?;
        Some((at + 1, name))
    });
    let (line, name) = named.ok_or(InvalidKey::NoPem)?;
    let mut within = Vec::new();
    for (_, text) in lines {
        if text.starts_with("-----") {
            let end = format!("-----END {name}-----");
            let closed = (text == end).then_some((line, name, within));
            return closed.ok_or(InvalidKey::CutOff { line });
        }
        within.push(text);
    }
    Err(InvalidKey::CutOff { line })
}

fn decoded(begin: usize, block: &[&str]) -> Result<Vec<u8>, InvalidKey> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if let Some(odd) = block.iter().position(|line| !line.chars().all(is_base64)) {
        // A header of a key that old programs have encrypted: `Proc-Type: 4,ENCRYPTED`.
        if block[odd].contains("ENCRYPTED") {
            return Err(other(begin, "ENCRYPTED PRIVATE KEY"));
        }
        return Err(InvalidKey::NoBase64 {
            line: begin + 1 + odd,
        });
    }
    let joined = block.concat();
    let line = begin + 1;
    let decoded = BASE64.decode(joined.as_bytes());
    decoded.map_err(|_| InvalidKey::NoBase64 { line })
}

fn other(line: usize, name: &str) -> InvalidKey {
    let advice = match name {
        "ENCRYPTED PRIVATE KEY" => "decrypt it with `openssl rsa -in FILE -out NEW`",
        "OPENSSH PRIVATE KEY" => "a key for ssh is none for an app; generate one at GitHub",
        name if name.contains("PUBLIC KEY") => "GitHub keeps that half; give the other",
        _ => "give the .pem file as GitHub hands it out",
    };
    // It may be anything: no more of it is shown than a name.
    let what = name.chars().filter(|c| !c.is_control()).take(40).collect();
    InvalidKey::Other { line, what, advice }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::encoding::Pkcs8V1Der;
    use aws_lc_rs::rsa::KeySize;

    use super::*;

    fn pem(name: &str, der: &[u8]) -> String {
        let text = BASE64.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {name}-----\n{}\n-----END {name}-----\n",
            lines.join("\n")
        )
    }

    #[test]
    fn both_forms_of_a_key_are_read() {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pkcs8 = pkcs8.as_ref();
        // PKCS#8 wraps PKCS#1 in a header that is the same for all keys of this size.
        let forms = [
            pem("PRIVATE KEY", pkcs8),
            pem("RSA PRIVATE KEY", &pkcs8[26..]),
        ];
        let signatures = forms.map(|pem| {
            let windows = format!("Key of app 7\r\n{}", pem.replace('\n', "\r\n"));
            let key = AppKey::from_pem(&windows).unwrap();
            assert_eq!(format!("{key:?}"), "AppKey(…)");
            key.sign(b"message").unwrap()
        });
        assert_eq!(signatures[0], signatures[1]);
        assert_eq!(signatures[0].len(), 256);
    }

    #[test]
    fn what_is_no_key_is_named_by_line_and_never_shown() {
        let inside = pem("RSA PRIVATE KEY", b"verysecretverysecret");
        let cut = inside.rsplit_once("-----END").unwrap().0.to_owned();
        let spoilt = format!("\n{}", inside.replace("dmVy", "d!Vy"));
        let encrypted = inside.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1);
        for (text, said) in [
            ("ghp_atoken\n".to_owned(), "no line -----BEGIN"),
            (String::new(), "no line -----BEGIN"),
            (pem("PUBLIC KEY", b"x"), "line 1: it holds PUBLIC KEY"),
            (pem("CERTIFICATE", b"x"), "line 1: it holds CERTIFICATE"),
            (pem("EC PRIVATE KEY", b"x"), "holds EC PRIVATE KEY"),
            (pem("OPENSSH PRIVATE KEY", b"x"), "for ssh"),
            (pem("ENCRYPTED PRIVATE KEY", b"x"), "openssl rsa"),
            (encrypted, "openssl rsa"),
            (cut, "line 1: what begins here"),
            (spoilt, "line 3: this is no base64"),
            (inside, "line 1: what follows is no RSA key"),
        ] {
            let error = AppKey::from_pem(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("dmVy"), "{error}");
        }
    }
}
