//! The pages of a node over bare HTTP/1.1, as a monitoring system reads them.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{TestNode, wait::soon};

/// What came back.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Page {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl TestNode {
    pub(crate) async fn get(&self, path: &str) -> Page {
        page(self.node.address(), path).await
    }

    pub(crate) async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Page {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: kelda\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        exchange(self.node.address(), &request).await
    }

    /// A value of `/metrics`, by the name of its series with labels if it has some.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        metric(self.node.address(), series).await
    }
}

/// A page of the node at an address.
pub(crate) async fn page(address: SocketAddr, path: &str) -> Page {
    let head = format!("GET {path} HTTP/1.1\r\nhost: kelda\r\nconnection: close\r\n\r\n");
    exchange(address, head.as_bytes()).await
}

/// A value of `/metrics` of the node at an address.
pub(crate) async fn metric(address: SocketAddr, series: &str) -> Option<f64> {
    let text = page(address, "/metrics").await.text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().expect("a metric is a number"))
}

async fn exchange(address: SocketAddr, request: &[u8]) -> Page {
    soon("an HTTP answer", async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("received");
        parse(&answer)
    })
    .await
}

fn parse(answer: &[u8]) -> Page {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("headers end");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .expect("a status line");
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut page = Page {
        status,
        headers,
        body: answer[end + 4..].to_vec(),
    };
    if page.header("transfer-encoding") == Some("chunked") {
        page.body = unchunk(&page.body);
    }
    page
}

fn unchunk(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks
            .windows(2)
            .position(|window| window == b"\r\n")
            .expect("a chunk has a size");
        let size = String::from_utf8_lossy(&chunks[..end]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("sizes are hexadecimal");
        if size == 0 {
            return body;
        }
        let data = &chunks[end + 2..];
        body.extend_from_slice(&data[..size]);
        chunks = &data[size + 2..];
    }
}
