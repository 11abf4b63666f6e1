//! Files on their way to the real server: too large, slow, cut off by its death.

use herm_testkit::process::{Server, wait_until};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, create};

const MIB: usize = 1024 * 1024;

/// Opens a connection and sends a request's head, which announces so many bytes.
async fn announce(world: &World, server: &Server, deployment_id: &str, bytes: usize) -> TcpStream {
    let mut connection = TcpStream::connect(server.base_url().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "PUT /v1/deployments/{deployment_id}/files?path=a/big.bin HTTP/1.1\r\nHost: herm.example\r\n\
         Authorization: Bearer {}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n",
        world.client.key()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

async fn answer(mut connection: TcpStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_in_and_out_through_little_memory() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let before = resident_kib(&server);
    let mut connection = announce(&world, &server, &deployment_id, 100 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..100 {
        connection.write_all(&piece).await.unwrap();
    }
    let written = answer(connection).await;
    assert!(written.starts_with("HTTP/1.1 200 ") && written.contains("\"size\":104857600"), "{written}");
    let path = format!("/v1/deployments/{deployment_id}/files/content?path=a/big.bin");
    let read = client.get(&path).await.unwrap();
    assert_eq!((read.status.as_u16(), read.bytes.len()), (200, 100 * MIB));
    let grown = resident_kib(&server) - before;
    assert!(grown < 32 * 1024, "the server grew by {grown} KiB at its largest");
    let part = client.call(Method::HEAD, &path, None).await.unwrap();
    assert_eq!(part.headers["content-length"], (100 * MIB).to_string());
}

/// By a client that sends all of it before it reads: its connection is not reset under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_refused_at_once_and_the_client_reads_why() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "anthropic/claude-sonnet-4.5").await;
    // Not a byte of it has come.
    let mut connection = announce(&world, &server, &deployment_id, 101 * MIB).await;
    let mut begun = [0; 12];
    connection.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 413");
    let mut connection = announce(&world, &server, &deployment_id, 101 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..101 {
        connection.write_all(&piece).await.unwrap();
    }
    let refused = answer(connection).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("validation_error"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_dies_with_the_server_leaves_nothing() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "anthropic/claude-sonnet-4.5").await;
    let mut connection = announce(&world, &server, &deployment_id, 50 * MIB).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..8 {
        connection.write_all(&piece).await.unwrap();
    }
    // It is being written: the directory is there, and an open file in it that has no name.
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
