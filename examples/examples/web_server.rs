//! A worker inside an axum server: one process that takes orders and works them off.
//!
//! `cargo run --example web_server`: it serves on a free port, asks itself, and stops.

use std::net::SocketAddr;

use aioq::prelude::*;
use aioq::{BoxError, ErrorKind};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[task]
fn factorial(number: u64) -> Result<u64, String> {
    let product = (1..=number).try_fold(1_u64, |product, factor| product.checked_mul(factor));
    product.ok_or_else(|| format!("the factorial of {number} does not fit 64 bits"))
}

type Reply<T> = Result<T, (StatusCode, String)>;

fn refuse(error: aioq::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::NotReady => StatusCode::ACCEPTED,
        ErrorKind::JobFailed => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

/// Takes the order and answers at once, with the id of the job.
async fn order(State(client): State<Client>, Path(number): Path<u64>) -> Reply<(StatusCode, String)> {
    let handle = client.kiq(factorial(number)).await.map_err(refuse)?;
    Ok((StatusCode::CREATED, handle.id().to_string()))
}

/// The result, waiting a moment for it.
async fn result(State(client): State<Client>, Path(id): Path<String>) -> Reply<Json<u64>> {
    let handle = client.handle::<u64>(id).await.map_err(refuse)?;
    handle.result_within("5s").await.map(Json).map_err(refuse)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let worker = App::new(Memory::new()).worker().await?;
    // The client of the worker is the server's: no globals.
    let routes = Router::new().route("/factorials/{number}", post(order)).route("/jobs/{id}", get(result));
    let routes = routes.with_state(worker.client().clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // One signal ends both. A real program would wait for Ctrl-C.
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run(stop.clone().cancelled_owned()));
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(async move { serving.await });

    let (status, id) = ask(address, "POST", "/factorials/10").await?;
    assert_eq!(status, 201);
    assert_eq!(ask(address, "GET", &format!("/jobs/{id}")).await?, (200, "3628800".to_owned()));
    let (_, id) = ask(address, "POST", "/factorials/100").await?;
    let (status, why) = ask(address, "GET", &format!("/jobs/{id}")).await?;
    assert_eq!(status, 422);
    assert!(why.ends_with("does not fit 64 bits"), "{why}");
    assert_eq!(ask(address, "GET", "/jobs/nope").await?.0, 404);

    stop.cancel();
    serving.await??;
    assert_eq!(working.await??.jobs, 2);
    Ok(())
}

/// The status and the body of an answer: as much HTTP as this program needs.
async fn ask(address: SocketAddr, method: &str, path: &str) -> Result<(u16, String), BoxError> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    let status = head.split_whitespace().nth(1).ok_or("no status")?;
    Ok((status.parse()?, body.to_owned()))
}
