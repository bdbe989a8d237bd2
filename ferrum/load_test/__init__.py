"""Load and latency of any server with the OpenAI API, seen from outside.

Owns: a client that asks as many users would, and what it saw of every answer. Refuses to know: what serves; nothing
here reads a model, and of other rooms it needs errors and files only.

| file | noun |
|---|---|
| `workload` | what is asked: prompts that no cache has seen |
| `question` | the body of one request |
| `plan` | what a measurement is to do |
| `arrivals` | when requests come, if they do not wait for each other |
| `events` | server-sent events in a stream of bytes |
| `answer` | one answer while it comes in |
| `timeline` | what happened to one request, and when |
| `figures` | a timeline in numbers: TTFT, TPOT, gaps, the whole time |
| `goals` | how fast is fast enough |
| `summary` | all requests in numbers: percentiles, throughput, goodput, errors |
| `server` | the server asked: its models, one request at a time |
| `load` | many requests: closed and open loop |
| `measurement` | one measurement from its beginning to its end |
| `report`, `picture` | the summary for people, as lines and as a plot |

Specs: BENCH. Next: `ferrum.load_test.workload`.
"""
