//! Tests of file uploads: a large file, a file that exceeds the size limit, and an upload during which the server is
//! killed.

use herm_testkit::process::{Server, wait_until};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, create};

const MIB: usize = 1024 * 1024;

/// Opens a connection and sends the head of an upload request with this content length, but no body.
async fn start_upload(world: &World, server: &Server, deployment_id: &str, bytes: usize) -> TcpStream {
    let mut connection = TcpStream::connect(server.base_url().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "PUT /v1/deployments/{deployment_id}/files?path=a/big.bin HTTP/1.1\r\nHost: herm.example\r\n\
         Authorization: Bearer {}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n",
        world.client.key()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

async fn read_response(mut connection: TcpStream) -> String {
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}

/// Returns the peak resident memory of the server, in KiB.
pub(crate) fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_uploaded_and_downloaded_with_little_memory() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let before = peak_kib(&server);
    let mut connection = start_upload(&world, &server, &deployment_id, 100 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..100 {
        connection.write_all(&piece).await.unwrap();
    }
    let written = read_response(connection).await;
    assert!(written.starts_with("HTTP/1.1 200 ") && written.contains("\"size\":104857600"), "{written}");
    let path = format!("/v1/deployments/{deployment_id}/files/content?path=a/big.bin");
    let read = client.get(&path).await.unwrap();
    assert_eq!((read.status.as_u16(), read.bytes.len()), (200, 100 * MIB));
    let growth = peak_kib(&server) - before;
    assert!(growth < 32 * 1024, "the peak memory of the server grew by {growth} KiB");
    let head = client.call(Method::HEAD, &path, None).await.unwrap();
    assert_eq!(head.headers["content-length"], (100 * MIB).to_string());
}

/// Two uploads of a file that is too large. The first sends no body and must be rejected immediately. The second sends
/// the whole body before it reads the response, so the server must not close the connection early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_rejected_immediately_and_the_client_can_read_the_error() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "anthropic/claude-sonnet-4.5").await;
    // The client sends no body, so the server must reject the upload because of its `Content-Length` header alone.
    let mut connection = start_upload(&world, &server, &deployment_id, 101 * MIB).await;
    let mut status_line = [0; 12];
    connection.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 413");
    let mut connection = start_upload(&world, &server, &deployment_id, 101 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..101 {
        connection.write_all(&piece).await.unwrap();
    }
    let refused = read_response(connection).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("validation_error"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_interrupted_by_a_kill_leaves_nothing() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "anthropic/claude-sonnet-4.5").await;
    let mut connection = start_upload(&world, &server, &deployment_id, 50 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..8 {
        connection.write_all(&piece).await.unwrap();
    }
    // During the upload, the server has an unnamed temporary file open in the target directory.
    let directory = world.workspace(&deployment_id).join("a");
    let open_files = format!("/proc/{}/fd", server.pid().unwrap());
    let is_open = || {
        let files = std::fs::read_dir(&open_files).unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.starts_with(&directory))
    };
    wait_until(is_open).await;
    server.kill().await.unwrap();
    let server = world.start().await;
    let listed =
        world.client_of(&server).get(&format!("/v1/deployments/{deployment_id}/files?path=a")).await.unwrap();
    assert_eq!(listed.json()["entries"], serde_json::json!([]));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}
