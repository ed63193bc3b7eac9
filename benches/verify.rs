//! What the identity of a message costs, against the bare signature check and body hash that nobody can avoid.
//!
//! `cargo bench --bench verify`. One RSA-2048 signature, records of SPF and DMARC, a DNS on loopback whose answers are in the
//! resolver's cache; the runtime has one thread, so that time is CPU.
#![allow(clippy::unwrap_used)] // A program for us.

#[path = "../tests/verify_dns/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod verify_dns;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use verify_dns::{Dns, Zone, txt};
use weir::base::content::Content;
use weir::config::settings;
use weir::dns::Resolver;
use weir::verify::dkim::canonical::hash_body;
use weir::verify::dkim::check::signed_header;
use weir::verify::dkim::evaluate::verify;
use weir::verify::dkim::key::{KeyRecord, PublicKey};
use weir::verify::dkim::keygen::{KeyKind, generate};
use weir::verify::dkim::sign::{SigningKey, sign};
use weir::verify::dkim::signature::{Algorithm, Canonicalization, Kind, Signature};
use weir::verify::meters::Meters;
use weir::verify::offload::on_pool;
use weir::verify::outcome::Outcome;
use weir::verify::{Facts, Message, Verifier};

/// Rounds of one measurement, and measurements of which the best counts: the machine may do other things too.
const ROUNDS: u32 = 2000;
const MEASUREMENTS: usize = 5;
const MEGABYTE: usize = 1_000_000;
/// Body sizes: a short note, a usual message.
const BODY_BYTES: [usize; 2] = [1_000, 20_000];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for bytes in BODY_BYTES {
            compare(bytes).await;
        }
        handing_over().await;
    });
    costs();
}

async fn compare(bytes: usize) {
    let (mut zone, now) = (Zone::new(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let key = SigningKey::from_pem("a.example", "s", &generate(KeyKind::Rsa).unwrap()).unwrap();
    txt(&mut zone, "s._domainkey.a.example", &key.record());
    txt(&mut zone, "a.example", "v=spf1 ip4:192.0.2.9 -all");
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let dns = Dns::start(&zone).await;
    let settings = settings::Dns {
        servers: vec![dns.address],
        timeout: Duration::from_secs(5),
        trust_ad: false,
        cache_entries: 1000,
    };
    let meters = Meters::register(&prometheus::Registry::new()).unwrap();
    let verifier = Verifier::new(Arc::new(Resolver::new(&settings).unwrap()), "mx.example", meters);
    let facts = Facts {
        ip: "192.0.2.9".parse().unwrap(),
        helo: "out.a.example".into(),
        reverse_path: Some("ann@a.example".into()),
    };
    let body = "A line of text  as people write them.\r\n".repeat(bytes / 39);
    let mail = format!("From: Ann <ann@a.example>\r\nTo: bob@b.example\r\nSubject: hello\r\n\r\n{body}");
    let signed = sign(&Message::parse(Content::from_bytes(mail.clone().into_bytes())), &key, now) + &mail;
    let content = Content::from_bytes(signed.into_bytes());

    let mut whole = Duration::MAX;
    for _ in 0..MEASUREMENTS {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            let results = verifier.check(&facts, &Message::parse(content.clone())).await;
            assert_eq!(results.dmarc.outcome, Outcome::Pass);
        }
        whole = whole.min(began.elapsed() / ROUNDS);
    }
    let bare = bare(&Message::parse(content), &key.record());
    let ratio = whole.as_secs_f64() / bare.as_secs_f64();
    println!(
        "identity, body {} bytes: {whole:?} a message, bare check and hash {bare:?}, ratio {ratio:.2}",
        body.len()
    );
}

/// The signature check and the body hash, everything else prepared.
fn bare(message: &Message, record: &str) -> Duration {
    let field = message.named("DKIM-Signature").next().unwrap();
    let signature = Signature::parse(&message.text(field), Kind::Dkim).unwrap();
    let header = signed_header(message, field, &signature);
    let key = KeyRecord::parse(record.as_bytes()).unwrap().key;
    let text = message.text(field);
    let (_, base64) = text.rsplit_once("b=").unwrap();
    let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let proof = STANDARD.decode(base64).unwrap();
    let mut best = Duration::MAX;
    for _ in 0..MEASUREMENTS {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            black_box(hash_body(Canonicalization::Relaxed, message.body(), None));
            assert!(verify(Algorithm::RsaSha256, &key, black_box(&header), &proof));
        }
        best = best.min(began.elapsed() / ROUNDS);
    }
    best
}

/// What it costs to let the pool do something, until the result is here.
async fn handing_over() {
    let mut best = Duration::MAX;
    for _ in 0..MEASUREMENTS {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            on_pool(|| black_box(())).await;
        }
        best = best.min(began.elapsed() / ROUNDS);
    }
    println!("handing over to the pool: {best:?}");
}

/// The figures that [`weir::verify::offload`] estimates by.
fn costs() {
    let body = "A line of text  as people write them.\r\n".repeat(MEGABYTE / 39);
    let began = Instant::now();
    black_box(hash_body(Canonicalization::Relaxed, body.as_bytes(), None));
    println!(
        "hashing a relaxed body: {:.0} bytes a microsecond",
        body.len() as f64 / began.elapsed().as_secs_f64() / 1e6
    );
    for bits in [KeySize::Rsa2048, KeySize::Rsa4096] {
        let key = KeyPair::generate(bits).unwrap();
        let mut proof = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"data", &mut proof).unwrap();
        let public = PublicKey::Rsa { der: key.public_key().as_ref().to_vec(), bits: key.public_modulus_len() * 8 };
        let began = Instant::now();
        for _ in 0..ROUNDS {
            assert!(verify(Algorithm::RsaSha256, &public, black_box(b"data"), &proof));
        }
        println!("checking a signature of RSA-{}: {:?}", key.public_modulus_len() * 8, began.elapsed() / ROUNDS);
    }
}
