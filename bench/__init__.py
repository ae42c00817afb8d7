"""Measures messagebus beside its peers, in one run on one machine. See docs/performance.md, and ``python -m bench -h``.

``contenders/`` starts each server and knows how to publish to it, ``wires.py`` how to subscribe to it, ``crowd.py`` is
the load generator, ``works/`` has one file for each thing that is measured.
"""
