"""What softly costs beside its peers: ``python -m benchmarks NAME``.

Ratios taken side by side in one run, medians of interleaved repetitions. Data comes from the
folder that the environment variable ``SOFTLY_DATA`` names.
"""
