//! The bench's control: how long a byte takes from one core to the other and back over loopback TCP.
//!
//! On a virtual machine that changes by a factor of two as the host moves its virtual cores about,
//! and with it what a request costs; a figure is only comparable with figures of the same state.
//!
//! Usage: `control echo ADDRESS` on one core, and on the other `control ask ADDRESS MILLISECONDS`,
//! which prints the number of round trips a second.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["echo", address] => echo(&TcpListener::bind(address)?),
        ["ask", address, milliseconds] => {
            let length = Duration::from_millis(milliseconds.parse()?);
            println!("{:.0}", ask(TcpStream::connect(address)?, length)?);
            Ok(())
        }
        _ => Err("usage: control echo ADDRESS | control ask ADDRESS MILLISECONDS".into()),
    }
}

/// Sends back every byte, one connection after the other.
fn echo(listener: &TcpListener) -> Result<(), Box<dyn Error>> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
    }
    Ok(())
}

/// Round trips of one byte a second.
fn ask(mut stream: TcpStream, length: Duration) -> Result<f64, Box<dyn Error>> {
    stream.set_nodelay(true)?;
    let begun = Instant::now();
    let mut trips = 0.0;
    let mut byte = [0];
    while begun.elapsed() < length {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        trips += 1.0;
    }
    Ok(trips / begun.elapsed().as_secs_f64())
}
