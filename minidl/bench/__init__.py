"""`minidl bench`: how fast is every implementation here, is it right, and how far is it from what this machine can do?

cases.py says what is measured, timing.py how, machine.py against which ceilings, measure.py puts them together into one
dict; table.py, page.py and compare.py show it.
"""
