//! How a byte stream to a broker comes about: over TCP, or whatever a test puts in its place.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a connection reads and writes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens byte streams. TLS is a connector that wraps another one.
pub trait Connector: Send + Sync + 'static {
    /// Resolves `host` afresh and connects. The caller bounds it in time; dropping the future gives up.
    fn connect(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Stream>>>;
}

/// Plain TCP: every address of the name in turn (KIP-302, KIP-602), without Nagle's delay.
#[derive(Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let host = host.trim_end_matches('.').to_owned();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Stream>);
                    }
                    Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                }
            }
            Err(last)
        })
    }
}

impl<C: Connector + ?Sized> Connector for Arc<C> {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        (**self).connect(host, port)
    }
}
