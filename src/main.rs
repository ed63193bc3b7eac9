//! The program: starts the command line, nothing else.

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
