//! Certificates of a test: an authority, brokers and clients that it vouches for, and the stores that Java keeps them in.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The password of every store.
pub(crate) const STORE_PASSWORD: &str = "store-secret";

/// A directory full of stores, gone with it.
pub(crate) struct Authorities {
    directory: tempfile::TempDir,
}

impl Authorities {
    /// ca.pem, foreign.pem, broker.pem, expired.pem, client.pem (keys with their certificates, those of clients with an
    /// authority in between), and of the first the stores ca.jks and ca.p12, of the last client.p12 and client.jks.
    pub(crate) fn new() -> Result<Self> {
        let own = Self { directory: tempfile::tempdir()? };
        let root = authority("root")?;
        own.write("ca.pem", &root.pem())?;
        own.write("foreign.pem", &authority("foreign")?.pem())?;
        own.write("broker.pem", &leaf(&["127.0.0.1"], &root, false)?)?;
        own.write("expired.pem", &leaf(&["127.0.0.1"], &root, true)?)?;
        own.write("elsewhere.pem", &leaf(&["elsewhere.test"], &root, false)?)?;
        let mut between = CertificateParams::default();
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        between.distinguished_name.push(DnType::CommonName, "between");
        let between = CertifiedIssuer::signed_by(between, KeyPair::generate()?, &root)?;
        own.write("client.pem", &format!("{}{}", leaf(&["client.test"], &between, false)?, between.pem()))?;
        own.stores()?;
        Ok(own)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path(name))?)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path(name), text)?)
    }

    /// By the JDK's own tool, so that the stores are what users have.
    fn stores(&self) -> Result<()> {
        for (kind, name) in [("JKS", "ca.jks"), ("PKCS12", "ca.p12")] {
            self.keytool(&[
                "-importcert",
                "-noprompt",
                "-alias",
                "ca",
                "-file",
                "ca.pem",
                "-storetype",
                kind,
                "-keystore",
                name,
            ])?;
        }
        // keytool reads keys out of stores only, so the first one is not its own.
        let text = self.text("client.pem")?;
        let sections: Vec<&str> = text.split_inclusive("-----END CERTIFICATE-----").collect();
        let (key, first) = sections.first().context("a key")?.split_once("-----BEGIN CERTIFICATE").context("a leaf")?;
        let certificate = |pem: &str| {
            let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes());
            let der: rustls::pki_types::CertificateDer<'_> = der.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            anyhow::Ok(p12_keystore::Certificate::from_der(&der)?)
        };
        let leaf = certificate(&format!("-----BEGIN CERTIFICATE{first}"))?;
        let between = certificate(sections.get(1).context("an issuer")?)?;
        let chain = p12_keystore::PrivateKeyChain::new(
            b"1".to_vec(),
            p12_keystore::PrivateKey::from_der(&KeyPair::from_pem(key)?.serialize_der())?,
            vec![leaf, between],
        );
        let mut store = p12_keystore::KeyStore::new();
        store.add_entry("client", p12_keystore::KeyStoreEntry::PrivateKeyChain(chain));
        fs::write(self.path("client.p12"), store.writer(STORE_PASSWORD).write()?)?;
        let from = ["-srckeystore", "client.p12", "-srcstoretype", "PKCS12", "-srcstorepass", STORE_PASSWORD];
        let to =
            ["-destkeystore", "client.jks", "-deststoretype", "JKS", "-deststorepass", STORE_PASSWORD, "-noprompt"];
        self.run(&[&["-importkeystore"], &from[..], &to[..]].concat())
    }

    fn keytool(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[arguments, &["-storepass", STORE_PASSWORD]].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("keytool").args(arguments).current_dir(self.directory.path()).output()?;
        ensure!(output.status.success(), "keytool {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A private key with its certificate, in PEM.
fn leaf(names: &[&str], issuer: &CertifiedIssuer<'static, KeyPair>, expired: bool) -> Result<String> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, names.concat());
    if expired {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}
