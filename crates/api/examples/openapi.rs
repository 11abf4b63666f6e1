//! Prints the OpenAPI document. `make openapi` saves this output as `openapi/v1.json`.

#[expect(clippy::print_stdout, reason = "the example writes to standard output")]
fn main() {
    print!("{}", herm_api::openapi());
}
