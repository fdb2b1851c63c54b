//! Servers that want to know who comes, and that are known by a certificate.

use std::path::{Path, PathBuf};

use aioq::{Backend, Client, ErrorKind};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, unique_prefix};

/// The pair of the NATS documentation: public, and of use to nobody.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const OTHER_SEED: &str = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU";

/// Files of one test, gone with it.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(unique_prefix());
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(config: &Path) -> NatsServer {
    NatsServer::start_with(&["-js", "-c", config.to_str().unwrap()]).await.unwrap()
}

async fn connect(nats: Nats) -> aioq::Result<Client> {
    Client::connect(Backend::from(nats)).await
}

#[tokio::test]
async fn an_nkey_opens_a_server_that_knows_it_and_another_does_not() {
    let files = Files::new();
    let config = files.write("auth.conf", &format!("authorization {{ users: [{{ nkey: {PUBLIC_KEY} }}] }}"));
    let server = start(&config).await;
    let known = Nats::new(server.url()).nkey(files.write("known.nk", SEED));
    assert!(connect(known).await.is_ok());
    let stranger = Nats::new(server.url()).nkey(files.write("other.nk", OTHER_SEED));
    assert!(matches!(connect(stranger).await.unwrap_err().kind(), ErrorKind::Config | ErrorKind::Connection));
}

#[tokio::test]
async fn a_server_is_trusted_by_the_certificate_that_signed_it() {
    let files = Files::new();
    let signed =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = files.write("server.pem", &signed.cert.pem());
    let key = files.write("key.pem", &signed.signing_key.serialize_pem());
    let config = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
    let server = start(&files.write("tls.conf", &config)).await;
    let trusted = Nats::new(server.url()).tls_ca(&certificate);
    assert!(connect(trusted).await.is_ok());
    let unknown = Nats::new(server.url()).deadline(std::time::Duration::from_secs(1));
    assert!(connect(unknown).await.is_err(), "a certificate that nobody vouches for is refused");
}
