"""Bad bytes: every parser of what others wrote, with a bound on its time and its memory.

targets.py     the table: one function from bytes for each parser, with seeds that it accepts
targets_*.py   the functions, by who meets the bytes
mutate.py      what is done to seeds
bombs.py       small inputs that would be large, deep or slow
worker.py      runs inputs under the bounds, in a process that may die
test_fuzz.py   a short run of all this, in `make test`
run.py         a long one under atheris, `make fuzz`
found/         inputs that once broke a target, run again in `make test`
"""
