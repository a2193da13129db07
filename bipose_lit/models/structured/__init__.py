"""Refiners that reason about the joints of one frame together: what of the maps fits a body?"""
