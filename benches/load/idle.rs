//! Holds connections that say EHLO and then nothing, from many addresses of 127.0.0.0/8.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::options::Options;

enum Held {
    Plain { _stream: TcpStream },
    Tls { _stream: Box<StreamOwned<ClientConnection, TcpStream>> },
}

pub fn run(options: &Options) -> io::Result<serde_json::Value> {
    weir::front::raise_descriptor_limit();
    let count: u32 = options.get("connections", "1000");
    let to = options.address("to");
    let tls = options.yes("tls", "no").then(|| client_config().unwrap());
    let began = Instant::now();
    let mut held = Vec::new();
    for number in 0..count {
        held.push(hold(to, number, tls.as_ref())?);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("holding {}", held.len());
    std::thread::sleep(options.seconds("seconds", "10"));
    Ok(serde_json::json!({ "held": held.len(), "seconds_to_open": seconds }))
}

fn hold(to: SocketAddr, number: u32, tls: Option<&Arc<ClientConfig>>) -> io::Result<Held> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if to.is_ipv4() {
        let [_, _, high, low] = (number / 16 + 1).to_be_bytes();
        socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, high, low)), 0).into())?;
    }
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    expect_reply(&mut stream)?;
    say(&mut stream, "EHLO idle.example.org\r\n")?;
    let Some(config) = tls else { return Ok(Held::Plain { _stream: stream }) };
    say(&mut stream, "STARTTLS\r\n")?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut secure = StreamOwned::new(session, stream);
    say(&mut secure, "EHLO idle.example.org\r\n")?;
    Ok(Held::Tls { _stream: Box::new(secure) })
}

fn say<S: Read + Write>(stream: &mut S, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    expect_reply(stream)
}

/// Reads one reply; nothing follows it, as the server waits for us.
fn expect_reply<S: Read>(stream: &mut S) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.as_bytes().get(3) != Some(&b'-') {
            let good = line.starts_with('2');
            return if good { Ok(()) } else { Err(io::Error::other(line)) };
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The load does not care who the server is.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ED25519]
    }
}
