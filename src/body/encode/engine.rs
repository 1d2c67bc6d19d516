//! The three codings behind one face: octets in, coded octets out, flushed or ended when asked.
//!
//! Levels are always explicit: brotli's own default is a hundred times slower than level 4, and zstd's larger ones take
//! windows that browsers refuse (RFC 9659 permits 8 MiB). Invariant: the memory of an engine is bounded by its level
//! alone, and [`weight`] is never below it.

use crate::message::accept::Coding;
use brotli::CompressorWriter;
use flate2::{Compress, Compression, FlushCompress, Status};
use std::io::{self, Write};
use zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

/// Room that is made for output at once.
const OUT: usize = 8 << 10;

/// Window of zstd and brotli, as a power of two: 512 KiB, which is what zstd 1 takes anyway. Larger ones help archives,
/// not answers, and their memory is held for every answer on its way.
const WINDOW_LOG: u32 = 19;

/// From this level on zstd's tables would grow with the level, up to half a GiB; they are held to 2 MiB each.
const ZSTD_CAPPED: u32 = 4;
const ZSTD_TABLE_LOG: u32 = 19;

/// How much an engine holds at most, in octets: what is counted against the budget of a worker.
pub(super) fn weight(coding: Coding, level: u32) -> usize {
    let kib = match (coding, level) {
        (Coding::Gzip, _) => 300,
        (Coding::Zstd, ..3) => 1536,
        (Coding::Zstd, ..ZSTD_CAPPED) => 2560,
        (Coding::Zstd, ..16) => 8 << 10,
        (Coding::Zstd, _) => 16 << 10,
        (Coding::Br, ..5) => 2 << 10,
        (Coding::Br, 5 | 6) => 6 << 10,
        (Coding::Br, 7) => 12 << 10,
        (Coding::Br, 8) => 22 << 10,
        (Coding::Br, _) => 40 << 10,
    };
    kib << 10
}

/// What becomes of the octets given so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// They may wait for more.
    More,
    /// They can be decoded from what is out.
    Flush,
    /// They are all.
    End,
}

/// The state of one coding.
pub(super) enum Engine {
    Zstd(CCtx<'static>),
    Br(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Box<Gzip>),
}

impl Engine {
    /// A fresh one.
    pub(super) fn new(coding: Coding, level: u32) -> io::Result<Engine> {
        Ok(match coding {
            Coding::Zstd => Engine::Zstd(zstd(level)?),
            Coding::Br => Engine::Br(Box::new(CompressorWriter::new(Vec::new(), OUT, level, WINDOW_LOG))),
            Coding::Gzip => Engine::Gzip(Box::new(Gzip {
                deflate: Compress::new(Compression::new(level), false),
                check: crc32fast::Hasher::new(),
                length: 0,
                begun: false,
            })),
        })
    }

    /// Says how much will come, where it is known: zstd takes a smaller window then, and tells the client. Nothing may
    /// have been given yet.
    pub(super) fn expect(&mut self, length: Option<u64>) -> io::Result<()> {
        match self {
            Engine::Zstd(context) => context.set_pledged_src_size(length).map(drop).map_err(zstd_error),
            Engine::Br(_) | Engine::Gzip(_) => Ok(()),
        }
    }

    /// Takes all of `input` and appends what comes out. After `End` only [`Engine::again`] may follow.
    pub(super) fn run(&mut self, input: &[u8], step: Step, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Engine::Zstd(context) => run_zstd(context, input, step, out),
            Engine::Br(writer) => run_brotli(writer, input, step, out),
            Engine::Gzip(gzip) => gzip.run(input, step, out),
        }
    }

    /// The engine as new, for another answer at the same level; brotli has no way back.
    pub(super) fn again(self) -> Option<Engine> {
        match self {
            Engine::Zstd(mut context) => {
                context.reset(ResetDirective::SessionOnly).ok()?;
                Some(Engine::Zstd(context))
            }
            Engine::Gzip(mut gzip) => {
                gzip.deflate.reset();
                gzip.check.reset();
                (gzip.length, gzip.begun) = (0, false);
                Some(Engine::Gzip(gzip))
            }
            Engine::Br(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Engine::Zstd(context) => Some(context.sizeof()),
            Engine::Br(_) | Engine::Gzip(_) => None,
        }
    }
}

fn zstd(level: u32) -> io::Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut set = |parameter| context.set_parameter(parameter).map(drop).map_err(zstd_error);
    set(CParameter::CompressionLevel(i32::try_from(level).unwrap_or(1)))?;
    set(CParameter::WindowLog(WINDOW_LOG))?;
    if level >= ZSTD_CAPPED {
        set(CParameter::HashLog(ZSTD_TABLE_LOG))?;
        set(CParameter::ChainLog(ZSTD_TABLE_LOG))?;
    }
    Ok(context)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

fn run_zstd(context: &mut CCtx<'static>, input: &[u8], step: Step, out: &mut Vec<u8>) -> io::Result<()> {
    let directive = match step {
        Step::More => Directive::ZSTD_e_continue,
        Step::Flush => Directive::ZSTD_e_flush,
        Step::End => Directive::ZSTD_e_end,
    };
    let mut input = InBuffer::around(input);
    loop {
        out.reserve(OUT);
        let at = out.len();
        let left = context.compress_stream2(&mut OutBuffer::around_pos(out, at), &mut input, directive);
        let left = left.map_err(zstd_error)?;
        if input.pos() == input.src.len() && (left == 0 || step == Step::More) {
            return Ok(());
        }
    }
}

fn run_brotli(writer: &mut CompressorWriter<Vec<u8>>, input: &[u8], step: Step, out: &mut Vec<u8>) -> io::Result<()> {
    writer.write_all(input)?;
    match step {
        Step::More => out.append(writer.get_mut()),
        Step::Flush => {
            writer.flush()?;
            out.append(writer.get_mut());
        }
        Step::End => {
            // Only taking the writer apart ends the stream.
            let ended = std::mem::replace(writer, CompressorWriter::new(Vec::new(), 1, 0, 10));
            out.append(&mut ended.into_inner());
        }
    }
    Ok(())
}

/// A gzip member around raw deflate: so the check is computed with the CPU's instructions, which zlib-rs does not use.
pub(super) struct Gzip {
    deflate: Compress,
    check: crc32fast::Hasher,
    /// Modulo 2^32, as the format has it.
    length: u32,
    begun: bool,
}

/// Magic, deflate, no flags, no time, no extra flags, unknown system (RFC 1952 section 2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

impl Gzip {
    fn run(&mut self, mut input: &[u8], step: Step, out: &mut Vec<u8>) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&GZIP_HEAD);
        }
        self.check.update(input);
        // The length is kept modulo 2^32, so its upper half may go.
        self.length = self.length.wrapping_add(input.len() as u32);
        let flush = match step {
            Step::More => FlushCompress::None,
            Step::Flush => FlushCompress::Sync,
            Step::End => FlushCompress::Finish,
        };
        loop {
            out.reserve(OUT);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(input, out, flush)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            let room_left = out.len() < out.capacity();
            match step {
                Step::End if status == Status::StreamEnd => break,
                Step::More | Step::Flush if input.is_empty() && room_left => return Ok(()),
                _ => {}
            }
        }
        out.extend_from_slice(&self.check.clone().finalize().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        Ok(())
    }
}
